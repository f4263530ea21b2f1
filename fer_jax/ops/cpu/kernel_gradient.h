// Gradients of convolution kernels, as matrix products.

#ifndef FER_JAX_KERNEL_GRADIENT_H_
#define FER_JAX_KERNEL_GRADIENT_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "convolution.h"
#include "geometry.h"
#include "memory.h"
#include "parallel.h"

namespace fer_jax {

constexpr int kGradientRows = 8;      // rows of a tile of the gradient
constexpr int64_t kBlockInputs = 64;  // input channels per block of work

// sums[m][n] += sum over k of left[k][m] * right[k][n], both packed.
inline void OuterProducts(const float* left, const float* right, int64_t depth,
                          float* sums, int64_t stride) {
  Vector tile[kGradientRows][2];
  for (int m = 0; m < kGradientRows; ++m) {
    tile[m][0] = Load(sums + m * stride);
    tile[m][1] = Load(sums + m * stride + kLanes);
  }
  for (int64_t k = 0; k < depth; ++k) {
    const Vector low = Load(right + k * kTileColumns);
    const Vector high = Load(right + k * kTileColumns + kLanes);
    for (int m = 0; m < kGradientRows; ++m) {
      const float a = left[k * kGradientRows + m];
      tile[m][0] += a * low;
      tile[m][1] += a * high;
    }
  }
  for (int m = 0; m < kGradientRows; ++m) {
    Store(sums + m * stride, tile[m][0]);
    Store(sums + m * stride + kLanes, tile[m][1]);
  }
}

// sum[i] = sum over j of partial[j * size + i], in order.
inline void AddSplits(ffi::ThreadPool& pool, const float* partial,
                      int64_t splits, int64_t size, float* sum) {
  constexpr int64_t kPiece = 4096;
  ParallelFor(pool, (size + kPiece - 1) / kPiece, [&](int64_t block) {
    const int64_t end = std::min(size, (block + 1) * kPiece);
    for (int64_t i = block * kPiece; i < end; ++i) {
      float total = partial[i];
      for (int64_t j = 1; j < splits; ++j) total += partial[j * size + i];
      sum[i] = total;
    }
  });
}

// Computes the gradient of a convolution's kernel.
inline ffi::Error KernelGradient(ffi::ThreadPool pool, Images x,
                                 Images gradient, ffi::Result<Images> result,
                                 int64_t stride_h, int64_t stride_w,
                                 int64_t top, int64_t left) {
  const auto s = x.dimensions(), g = gradient.dimensions(),
             k = result->dimensions();
  const auto rows = SourceIndices(g[1], s[1], k[0], stride_h, top, false);
  const auto columns = SourceIndices(g[2], s[2], k[1], stride_w, left, false);
  const std::vector<int> source_pixels =
      SourcePixels(rows, columns, s[2], k[0], k[1]);
  const int64_t batch = s[0], inputs = s[3], outputs = g[3];
  const int64_t taps = k[0] * k[1], pixels = s[1] * s[2];
  const int64_t positions = g[1] * g[2], size = taps * inputs * outputs;

  // The (pixel of x, position of the gradient) pairs of every tap.
  std::vector<std::vector<std::pair<int64_t, int64_t>>> pairs_of(taps);
  for (int64_t position = 0; position < positions; ++position)
    for (int64_t tap = 0; tap < taps; ++tap)
      if (const int pixel = source_pixels[position * taps + tap]; pixel >= 0)
        pairs_of[tap].push_back({pixel, position});

  const int64_t heights = (inputs + kBlockInputs - 1) / kBlockInputs;
  const int64_t tiles = taps * heights;
  const int64_t splits = std::clamp<int64_t>(
      std::min(32 / tiles, positions * batch / 512), 1, batch);
  const Memory<float> partial(splits > 1 ? splits * size : 0);
  float* whole = result->typed_data();
  ParallelFor(pool, tiles * splits, [&](int64_t block) {
    const int64_t split = block / tiles, tap = block % tiles / heights;
    const int64_t m0 = block % heights * kBlockInputs;
    const int64_t height = std::min(kBlockInputs, inputs - m0);
    const int64_t b0 = split * batch / splits;
    const int64_t images = (split + 1) * batch / splits - b0;
    float* sums = (splits > 1 ? partial.at(split * size) : whole) +
                  (tap * inputs + m0) * outputs;
    std::fill(sums, sums + height * outputs, 0.0f);
    const auto& pairs = pairs_of[tap];
    const int64_t terms = static_cast<int64_t>(pairs.size()) * images;
    const Memory<float> a(kDepthStep * height), b(kDepthStep * kTileColumns);
    std::vector<const float*> from(kDepthStep), with(kDepthStep);
    for (int64_t start = 0; start < terms; start += kDepthStep) {
      const int64_t depth = std::min(kDepthStep, terms - start);
      for (int64_t i = 0; i < depth; ++i) {
        const auto& [pixel, position] = pairs[(start + i) % pairs.size()];
        const int64_t image = b0 + (start + i) / pairs.size();
        from[i] = x.typed_data() + (image * pixels + pixel) * inputs + m0;
        with[i] =
            gradient.typed_data() + (image * positions + position) * outputs;
      }
      for (int64_t m = 0; m < height; m += kGradientRows)
        for (int64_t i = 0; i < depth; ++i)
          std::copy_n(from[i] + m, kGradientRows,
                      a.at(m * depth + i * kGradientRows));
      for (int64_t n = 0; n < outputs; n += kTileColumns) {
        for (int64_t i = 0; i < depth; ++i) {
          Store(b.at(i * kTileColumns), Load(with[i] + n));
          Store(b.at(i * kTileColumns + kLanes), Load(with[i] + n + kLanes));
        }
        for (int64_t m = 0; m < height; m += kGradientRows)
          OuterProducts(a.at(m * depth), b.at(0), depth, sums + m * outputs + n,
                        outputs);
      }
    }
  });
  if (splits > 1) AddSplits(pool, partial.at(0), splits, size, whole);
  return ffi::Error::Success();
}

}  // namespace fer_jax

#endif  // FER_JAX_KERNEL_GRADIENT_H_
