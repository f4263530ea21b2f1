// Depthwise convolutions, and the gradients of their kernels.

#ifndef FER_JAX_DEPTHWISE_H_
#define FER_JAX_DEPTHWISE_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "geometry.h"
#include "parallel.h"

namespace fer_jax {

using Images = ffi::Buffer<ffi::F32, 4>;

struct Tap {
  const float* source;
  const float* kernel;
};

// result[c] = sum over taps of source[c] * kernel[c].
template <int kVectors>
inline void MultiplyAdd(const Tap* taps, int num_taps, int64_t c,
                        float* result) {
  Vector sum[kVectors] = {};
  for (int t = 0; t < num_taps; ++t)
    for (int v = 0; v < kVectors; ++v)
      sum[v] += Load(taps[t].source + c + v * kLanes) *
                Load(taps[t].kernel + c + v * kLanes);
  for (int v = 0; v < kVectors; ++v) Store(result + c + v * kLanes, sum[v]);
}

// Computes a depthwise convolution of `source`, or its transpose.
inline void Gather(ffi::ThreadPool& pool, const float* source,
                   const float* kernel, float* result, int64_t batch,
                   int64_t source_h, int64_t source_w, int64_t result_h,
                   int64_t result_w, int64_t channels, int64_t kernel_h,
                   int64_t kernel_w, const std::vector<int>& rows,
                   const std::vector<int>& columns) {
  const int64_t num_rows = batch * result_h;
  const int64_t rows_per_block =
      std::max<int64_t>(1, 65536 / (result_w * channels));
  const int64_t blocks = (num_rows + rows_per_block - 1) / rows_per_block;
  ParallelFor(pool, blocks, [&](int64_t block) {
    std::vector<Tap> taps(kernel_h * kernel_w);
    const int64_t end = std::min(num_rows, (block + 1) * rows_per_block);
    for (int64_t row = block * rows_per_block; row < end; ++row) {
      const float* image =
          source + row / result_h * source_h * source_w * channels;
      const int* at_row = rows.data() + row % result_h * kernel_h;
      for (int64_t w = 0; w < result_w; ++w) {
        const int* at_column = columns.data() + w * kernel_w;
        int n = 0;
        for (int64_t i = 0; i < kernel_h; ++i) {
          if (at_row[i] < 0) continue;
          for (int64_t j = 0; j < kernel_w; ++j) {
            if (at_column[j] < 0) continue;
            const int64_t pixel = at_row[i] * source_w + at_column[j];
            taps[n++] = {image + pixel * channels,
                         kernel + (i * kernel_w + j) * channels};
          }
        }
        float* out = result + (row * result_w + w) * channels;
        int64_t c = 0;
        for (; c + 4 * kLanes <= channels; c += 4 * kLanes)
          MultiplyAdd<4>(taps.data(), n, c, out);
        for (; c + kLanes <= channels; c += kLanes)
          MultiplyAdd<1>(taps.data(), n, c, out);
        for (; c < channels; ++c) {
          float sum = 0;
          for (int t = 0; t < n; ++t)
            sum += taps[t].source[c] * taps[t].kernel[c];
          out[c] = sum;
        }
      }
    }
  });
}

// Computes y from x, or if `transposed` x's gradient from y's.
inline ffi::Error Depthwise(ffi::ThreadPool pool, Images source, Images kernel,
                            ffi::Result<Images> result, int64_t stride_h,
                            int64_t stride_w, int64_t top, int64_t left,
                            bool transposed) {
  const auto s = source.dimensions(), k = kernel.dimensions(),
             r = result->dimensions();
  const auto rows = SourceIndices(r[1], s[1], k[0], stride_h, top, transposed);
  const auto columns =
      SourceIndices(r[2], s[2], k[1], stride_w, left, transposed);
  Gather(pool, source.typed_data(), kernel.typed_data(), result->typed_data(),
         s[0], s[1], s[2], r[1], r[2], s[3], k[0], k[1], rows, columns);
  return ffi::Error::Success();
}

// Taps of one kernel row that share one read of the gradient.
constexpr int kGroup = 3;

template <int kVectors>
void KernelSums(const float* x, const float* gradient, float* sums,
                int64_t channels, int64_t x_w, int64_t out_w, int num_taps,
                const int* columns, int64_t kernel_w) {
  Vector sum[kGroup][kVectors];
  for (int t = 0; t < num_taps; ++t)
    for (int v = 0; v < kVectors; ++v)
      sum[t][v] = Load(sums + t * channels + v * kLanes);
  for (int64_t w = 0; w < out_w; ++w) {
    Vector g[kVectors];
    for (int v = 0; v < kVectors; ++v)
      g[v] = Load(gradient + w * channels + v * kLanes);
    const int* at = columns + w * kernel_w;
    for (int t = 0; t < num_taps; ++t) {
      if (at[t] < 0) continue;
      const float* p = x + at[t] * channels;
      for (int v = 0; v < kVectors; ++v)
        sum[t][v] += g[v] * Load(p + v * kLanes);
    }
  }
  for (int t = 0; t < num_taps; ++t)
    for (int v = 0; v < kVectors; ++v)
      Store(sums + t * channels + v * kLanes, sum[t][v]);
}

inline void KernelSumsTail(const float* x, const float* gradient, float* sums,
                           int64_t channels, int64_t count, int64_t out_w,
                           int num_taps, const int* columns, int64_t kernel_w) {
  for (int64_t w = 0; w < out_w; ++w)
    for (int t = 0; t < num_taps; ++t) {
      const int at = columns[w * kernel_w + t];
      if (at < 0) continue;
      for (int64_t c = 0; c < count; ++c)
        sums[t * channels + c] +=
            gradient[w * channels + c] * x[at * channels + c];
    }
}

inline ffi::Error DepthwiseKernelGradient(ffi::ThreadPool pool, Images x,
                                          Images gradient,
                                          ffi::Result<Images> result,
                                          int64_t stride_h, int64_t stride_w,
                                          int64_t top, int64_t left) {
  const auto s = x.dimensions(), g = gradient.dimensions(),
             k = result->dimensions();
  const int64_t channels = s[3], kernel_h = k[0], kernel_w = k[1];
  const auto rows = SourceIndices(g[1], s[1], kernel_h, stride_h, top, false);
  const auto columns =
      SourceIndices(g[2], s[2], kernel_w, stride_w, left, false);
  const int64_t size = kernel_h * kernel_w * channels;
  const int64_t blocks = std::min<int64_t>(s[0], 16);
  std::vector<float> partial(blocks * size, 0.0f);
  ParallelFor(pool, blocks, [&](int64_t block) {
    const int64_t end = (block + 1) * s[0] / blocks;
    for (int64_t b = block * s[0] / blocks; b < end; ++b)
      for (int64_t h = 0; h < g[1]; ++h) {
        const float* row =
            gradient.typed_data() + (b * g[1] + h) * g[2] * channels;
        for (int64_t i = 0; i < kernel_h; ++i) {
          const int at = rows[h * kernel_h + i];
          if (at < 0) continue;
          const float* from =
              x.typed_data() + (b * s[1] + at) * s[2] * channels;
          for (int64_t j = 0; j < kernel_w; j += kGroup) {
            const int n =
                static_cast<int>(std::min<int64_t>(kGroup, kernel_w - j));
            float* sums =
                partial.data() + block * size + (i * kernel_w + j) * channels;
            const int* at_column = columns.data() + j;
            int64_t c = 0;
            for (; c + 4 * kLanes <= channels; c += 4 * kLanes)
              KernelSums<4>(from + c, row + c, sums + c, channels, s[2], g[2],
                            n, at_column, kernel_w);
            for (; c + kLanes <= channels; c += kLanes)
              KernelSums<1>(from + c, row + c, sums + c, channels, s[2], g[2],
                            n, at_column, kernel_w);
            if (c < channels)
              KernelSumsTail(from + c, row + c, sums + c, channels,
                             channels - c, g[2], n, at_column, kernel_w);
          }
        }
      }
  });
  float* sum = result->typed_data();
  std::fill(sum, sum + size, 0.0f);
  for (int64_t block = 0; block < blocks; ++block)
    for (int64_t i = 0; i < size; ++i) sum[i] += partial[block * size + i];
  return ffi::Error::Success();
}

}  // namespace fer_jax

#endif  // FER_JAX_DEPTHWISE_H_
