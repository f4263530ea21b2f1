// Convolutions of images with few channels, and the gradients of their kernels.

#ifndef FER_JAX_STEM_H_
#define FER_JAX_STEM_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "convolution.h"
#include "geometry.h"
#include "kernel_gradient.h"
#include "parallel.h"

namespace fer_jax {

// The patch of the images that the kernel covers at each output position:
// `size` floats, ordered as in the kernel; 0 in the padding.
class Patches {
 public:
  Patches(const float* images, int64_t height, int64_t width, int64_t channels,
          int64_t result_h, int64_t result_w, int64_t kernel_h,
          int64_t kernel_w, int64_t stride_h, int64_t stride_w, int64_t top,
          int64_t left)
      : size(kernel_h * kernel_w * channels),
        images_(images),
        height_(height),
        width_(width),
        channels_(channels),
        result_w_(result_w),
        positions_(result_h * result_w),
        kernel_w_(kernel_w),
        rows_(SourceIndices(result_h, height, kernel_h, stride_h, top, false)),
        columns_(
            SourceIndices(result_w, width, kernel_w, stride_w, left, false)),
        kernel_h_(kernel_h) {}

  // Writes a patch; `index` counts the positions of all images.
  void Get(int64_t index, float* patch) const {
    const int64_t position = index % positions_;
    const float* image =
        images_ + index / positions_ * height_ * width_ * channels_;
    const int* rows = rows_.data() + position / result_w_ * kernel_h_;
    const int* columns = columns_.data() + position % result_w_ * kernel_w_;
    const int64_t line = kernel_w_ * channels_;
    const bool inside = columns[0] >= 0 && columns[kernel_w_ - 1] >= 0;
    for (int64_t i = 0; i < kernel_h_; ++i, patch += line) {
      if (rows[i] < 0) {
        std::fill_n(patch, line, 0.0f);
        continue;
      }
      const float* row = image + rows[i] * width_ * channels_;
      if (inside) {
        std::copy_n(row + columns[0] * channels_, line, patch);
        continue;
      }
      for (int64_t j = 0; j < kernel_w_; ++j)
        for (int64_t c = 0; c < channels_; ++c)
          patch[j * channels_ + c] =
              columns[j] < 0 ? 0.0f : row[columns[j] * channels_ + c];
    }
  }

  const int64_t size;

 private:
  const float* images_;
  const int64_t height_, width_, channels_, result_w_, positions_, kernel_w_;
  const std::vector<int> rows_, columns_;
  const int64_t kernel_h_;
};

inline ffi::Error Stem(ffi::ThreadPool pool, Images x, Images kernel,
                       ffi::Result<Images> result, int64_t stride_h,
                       int64_t stride_w, int64_t top, int64_t left) {
  const auto s = x.dimensions(), k = kernel.dimensions(),
             r = result->dimensions();
  const Patches patches(x.typed_data(), s[1], s[2], s[3], r[1], r[2], k[0],
                        k[1], stride_h, stride_w, top, left);
  const int64_t width = r[3], all = r[0] * r[1] * r[2];
  constexpr int64_t kTiles = 16;  // per block of work
  const int64_t blocks = (all + kTiles * kTileRows - 1) / (kTiles * kTileRows);
  ParallelFor(pool, blocks, [&](int64_t block) {
    std::vector<float> patch_rows(kTileRows * patches.size);
    Operands operands;
    for (int i = 0; i < kTileRows; ++i)
      operands.line[i] = patch_rows.data() + i * patches.size;
    const int64_t end = std::min(all, (block + 1) * kTiles * kTileRows);
    for (int64_t at = block * kTiles * kTileRows; at < end; at += kTileRows) {
      const int count =
          static_cast<int>(std::min<int64_t>(kTileRows, end - at));
      for (int i = 0; i < count; ++i)
        patches.Get(at + i, patch_rows.data() + i * patches.size);
      for (int64_t n = 0; n < width; n += kTileColumns) {
        Vector tile[kTileRows][2] = {};
        operands.panel = kernel.typed_data() + n;
        MultiplyRows(count, &operands, 1, width, patches.size, tile);
        for (int i = 0; i < count; ++i) {
          float* out = result->typed_data() + (at + i) * width + n;
          Store(out, tile[i][0]);
          Store(out + kLanes, tile[i][1]);
        }
      }
    }
  });
  return ffi::Error::Success();
}

inline ffi::Error StemKernelGradient(ffi::ThreadPool pool, Images x,
                                     Images gradient,
                                     ffi::Result<Images> result,
                                     int64_t stride_h, int64_t stride_w,
                                     int64_t top, int64_t left) {
  const auto s = x.dimensions(), g = gradient.dimensions(),
             k = result->dimensions();
  const Patches patches(x.typed_data(), s[1], s[2], s[3], g[1], g[2], k[0],
                        k[1], stride_h, stride_w, top, left);
  const int64_t width = g[3], all = g[0] * g[1] * g[2];
  const int64_t height =
      (patches.size + kGradientRows - 1) / kGradientRows * kGradientRows;
  const int64_t blocks = std::clamp<int64_t>(all / 1024, 1, 16);
  std::vector<float> partial(blocks * height * width, 0.0f);
  ParallelFor(pool, blocks, [&](int64_t block) {
    float* sums = partial.data() + block * height * width;
    std::vector<float> patch_rows(height), a(kDepthStep * height),
        b(kDepthStep * kTileColumns);
    const int64_t end = (block + 1) * all / blocks;
    for (int64_t at = block * all / blocks; at < end; at += kDepthStep) {
      const int64_t depth = std::min(kDepthStep, end - at);
      for (int64_t i = 0; i < depth; ++i) {
        patches.Get(at + i, patch_rows.data());
        for (int64_t m = 0; m < height; m += kGradientRows)
          std::copy_n(patch_rows.data() + m, kGradientRows,
                      a.data() + m * depth + i * kGradientRows);
      }
      for (int64_t n = 0; n < width; n += kTileColumns) {
        for (int64_t i = 0; i < depth; ++i)
          std::copy_n(gradient.typed_data() + (at + i) * width + n,
                      kTileColumns, b.data() + i * kTileColumns);
        for (int64_t m = 0; m < height; m += kGradientRows)
          OuterProducts(a.data() + m * depth, b.data(), depth,
                        sums + m * width + n, width);
      }
    }
  });
  float* sum = result->typed_data();
  const int64_t size = patches.size * width;
  std::fill_n(sum, size, 0.0f);
  for (int64_t block = 0; block < blocks; ++block)
    for (int64_t i = 0; i < size; ++i)
      sum[i] += partial[block * height * width + i];
  return ffi::Error::Success();
}

}  // namespace fer_jax

#endif  // FER_JAX_STEM_H_
