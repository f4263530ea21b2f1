// Convolutions as matrix products.

#ifndef FER_JAX_CONVOLUTION_H_
#define FER_JAX_CONVOLUTION_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "geometry.h"
#include "memory.h"
#include "parallel.h"

namespace fer_jax {

using Images = ffi::Buffer<ffi::F32, 4>;

// Matrix products are computed in tiles of kTileRows x kTileColumns, which stay
// in registers.
constexpr int kTileRows = 12;
constexpr int kTileColumns = 32;     // two vectors
constexpr int64_t kDepthStep = 256;  // terms added before a tile is stored

// Rows of the source and the weights that they are multiplied with.
struct Operands {
  const float* line[kTileRows];
  const float* panel;
};

// tile[r][n] += sum over operands and k of line[r][k] * panel[k * stride + n].
// Prefetches the panel `kAhead` rows ahead.
template <int kRows, int kAhead>
void MultiplyRows(const Operands* operands, int64_t num_operands,
                  int64_t stride, int64_t depth, Vector (&tile)[kTileRows][2]) {
  Vector sum[kRows][2];  // in registers: no other pointer aliases it
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 2; ++v) sum[r][v] = tile[r][v];
  for (int64_t i = 0; i < num_operands; ++i) {
    const float* panel = operands[i].panel;
    const float* line[kRows];
    for (int r = 0; r < kRows; ++r) line[r] = operands[i].line[r];
    for (int64_t k = 0; k < depth; ++k) {
      const Vector low = Load(panel + k * stride);
      const Vector high = Load(panel + k * stride + kLanes);
      if (kAhead) {
        __builtin_prefetch(panel + (k + kAhead) * stride);
        __builtin_prefetch(panel + (k + kAhead) * stride + kLanes);
      }
      for (int r = 0; r < kRows; ++r) {
        const float a = line[r][k];
        sum[r][0] += a * low;
        sum[r][1] += a * high;
      }
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 2; ++v) tile[r][v] = sum[r][v];
}

// Computes at least `rows` rows; the lines of all kTileRows must be readable.
template <int kAhead = 0>
void MultiplyRows(int rows, const Operands* operands, int64_t num_operands,
                  int64_t stride, int64_t depth, Vector (&tile)[kTileRows][2]) {
  const auto multiply = rows <= 4    ? MultiplyRows<4, kAhead>
                        : rows <= 9  ? MultiplyRows<9, kAhead>
                        : rows <= 10 ? MultiplyRows<10, kAhead>
                        : rows <= 11 ? MultiplyRows<11, kAhead>
                                     : MultiplyRows<kTileRows, kAhead>;
  multiply(operands, num_operands, stride, depth, tile);
}

// The source as rows of a matrix product: see `SourcePixels`.
struct SourceLines {
  const float* source;
  int64_t pixels, depth, positions, taps;
  const std::vector<int>& source_pixels;
  const std::vector<float> zeros;

  // Returns the channels that a tap multiplies for a position of an image.
  const float* At(int64_t image, int64_t position, int64_t tap) const {
    const int pixel = source_pixels[position * taps + tap];
    return pixel < 0 ? zeros.data() : source + (image * pixels + pixel) * depth;
  }

  // Prefetches what the last tap multiplies for the same position of several
  // images: the only part that the position before it did not need.
  void Fetch(const int64_t* images, int count, int64_t position, int64_t start,
             int64_t num_channels) const {
    if (source_pixels[(position + 1) * taps - 1] < 0) return;
    for (int i = 0; i < count; ++i) {
      const float* line = At(images[i], position, taps - 1) + start;
      for (int64_t d = 0; d < num_channels; d += kLanes)
        __builtin_prefetch(line + d);
    }
  }
};

// Returns the kernel as [panel][tap][depth][kTileColumns].
inline Memory<float> Pack(ffi::ThreadPool& pool, const float* kernel,
                          int64_t taps, int64_t depth, int64_t width,
                          bool transposed) {
  Memory<float> packed(taps * depth * width);
  ParallelFor(pool, width / kTileColumns * taps, [&](int64_t block) {
    const int64_t panel = block / taps, tap = block % taps;
    float* to = packed.at(block * depth * kTileColumns);
    if (!transposed) {
      const float* p = kernel + tap * depth * width + panel * kTileColumns;
      for (int64_t d = 0; d < depth; ++d)
        std::copy_n(p + d * width, kTileColumns, to + d * kTileColumns);
    } else {
      const float* p = kernel + (tap * width + panel * kTileColumns) * depth;
      for (int64_t n = 0; n < kTileColumns; ++n)
        for (int64_t d = 0; d < depth; ++d)
          to[d * kTileColumns + n] = p[n * depth + d];
    }
  });
  return packed;
}

// Computes a convolution of at most kTileRows output positions. Most of what is
// read are the weights: they are read once and in order, for all positions.
inline void MultiplyFewRows(ffi::ThreadPool& pool, const SourceLines& lines,
                            const float* kernel, int rows, int64_t width,
                            float* result) {
  constexpr int64_t kRun = 16;    // channels; the depth is a multiple of it
  constexpr int64_t kSpan = 256;  // outputs
  const int64_t runs_per_tap = lines.depth / kRun,
                panels = width / kTileColumns;
  const int64_t runs = lines.taps * runs_per_tap;
  const int64_t spans = (width + kSpan - 1) / kSpan;
  const int64_t splits = std::clamp<int64_t>(16 / spans, 1, runs);
  const int64_t size = rows * width;
  std::vector<float> partial(splits > 1 ? splits * size : 0);
  if (splits == 1) std::fill_n(result, size, 0.0f);
  ParallelFor(pool, splits * spans, [&](int64_t block) {
    const int64_t split = block / spans, span = block % spans;
    float* sums = splits > 1 ? partial.data() + split * size : result;
    const int64_t first = span * panels / spans * kTileColumns;
    const int64_t last = (span + 1) * panels / spans * kTileColumns;
    const int64_t end = (split + 1) * runs / splits;
    for (int64_t run = split * runs / splits; run < end; ++run) {
      const int64_t tap = run / runs_per_tap, start = run % runs_per_tap * kRun;
      Operands operands;
      bool used = false;
      for (int i = 0; i < kTileRows; ++i) {
        const int64_t row = std::min(i, rows - 1);
        operands.line[i] =
            lines.At(row / lines.positions, row % lines.positions, tap);
        used |= operands.line[i] != lines.zeros.data();
        operands.line[i] += start;
      }
      if (!used) continue;
      const float* weights = kernel + (tap * lines.depth + start) * width;
      for (int64_t n = first; n < last; n += kTileColumns) {
        Vector tile[kTileRows][2] = {};
        for (int i = 0; i < rows; ++i)
          for (int v = 0; v < 2; ++v)
            tile[i][v] = Load(sums + i * width + n + v * kLanes);
        operands.panel = weights + n;
        MultiplyRows<kRun>(rows, &operands, 1, width, kRun, tile);
        for (int i = 0; i < rows; ++i)
          for (int v = 0; v < 2; ++v)
            Store(sums + i * width + n + v * kLanes, tile[i][v]);
      }
    }
  });
  if (splits == 1) return;
  std::copy_n(partial.data(), size, result);
  for (int64_t split = 1; split < splits; ++split)
    for (int64_t i = 0; i < size; ++i) result[i] += partial[split * size + i];
}

// Computes a convolution or its transpose. The rows of a tile are one position
// of several images, so that padding is never multiplied; in a small batch they
// are several positions.
inline ffi::Error Convolution(ffi::ThreadPool pool, Images source,
                              Images kernel, ffi::Result<Images> result,
                              int64_t stride_h, int64_t stride_w, int64_t top,
                              int64_t left, bool transposed) {
  const auto s = source.dimensions(), k = kernel.dimensions(),
             r = result->dimensions();
  const auto rows = SourceIndices(r[1], s[1], k[0], stride_h, top, transposed);
  const auto columns =
      SourceIndices(r[2], s[2], k[1], stride_w, left, transposed);
  const std::vector<int> source_pixels =
      SourcePixels(rows, columns, s[2], k[0], k[1]);
  const int64_t batch = s[0], depth = s[3], width = r[3];
  const int64_t taps = k[0] * k[1], positions = r[1] * r[2];
  const int64_t pixels = s[1] * s[2], panels = width / kTileColumns;

  const SourceLines lines{
      source.typed_data(),      pixels, depth, positions, taps, source_pixels,
      std::vector<float>(depth)};
  if (!transposed && batch * positions <= kTileRows) {
    MultiplyFewRows(pool, lines, kernel.typed_data(),
                    static_cast<int>(batch * positions), width,
                    result->typed_data());
    return ffi::Error::Success();
  }

  // Weights that are used a few times only are not packed.
  const bool direct = !transposed && batch * positions <= 12 * kTileRows;
  const Memory<float> packed =
      direct ? Memory<float>(0)
             : Pack(pool, kernel.typed_data(), taps, depth, width, transposed);
  const int64_t stride = direct ? width : kTileColumns;

  const bool by_images = batch >= 8;
  const int64_t all = by_images ? batch : batch * positions;  // rows
  const int64_t groups = (all + kTileRows - 1) / kTileRows;
  const int64_t tiles = by_images ? positions : 1;  // per group
  // The larger of images and weights is read once.
  const bool panels_inner = taps * width < batch * pixels;
  ParallelFor(pool, panels * groups, [&](int64_t block) {
    const int64_t panel = panels_inner ? block % panels : block / groups;
    const int64_t group = panels_inner ? block / panels : block % groups;
    const int64_t first = group * all / groups;
    const int count = static_cast<int>((group + 1) * all / groups - first);
    const float* weights = direct
                               ? kernel.typed_data() + panel * kTileColumns
                               : packed.at(panel * taps * depth * kTileColumns);
    std::vector<Operands> operands(taps);
    for (int64_t start = 0; start < depth; start += kDepthStep) {
      const int64_t depth_step = std::min(kDepthStep, depth - start);
      for (int64_t one = 0; one < tiles; ++one) {
        int64_t image[kTileRows], position[kTileRows];
        for (int i = 0; i < kTileRows; ++i) {
          const int64_t row = first + std::min(i, count - 1);
          image[i] = by_images ? row : row / positions;
          position[i] = by_images ? one : row % positions;
        }
        int64_t num_used = 0;
        for (int64_t tap = 0; tap < taps; ++tap) {
          Operands& f = operands[num_used];
          bool any = false;
          for (int i = 0; i < kTileRows; ++i) {
            f.line[i] = lines.At(image[i], position[i], tap);
            any |= f.line[i] != lines.zeros.data();
            f.line[i] += start;
          }
          f.panel = weights + (tap * depth + start) * stride;
          num_used += any;
        }
        if (one + 1 < tiles)
          lines.Fetch(image, count, one + 1, start, depth_step);
        Vector tile[kTileRows][2] = {};
        if (direct)
          MultiplyRows<16>(count, operands.data(), num_used, stride, depth_step,
                           tile);
        else
          MultiplyRows(count, operands.data(), num_used, stride, depth_step,
                       tile);
        for (int i = 0; i < count; ++i) {
          float* out = result->typed_data() +
                       (image[i] * positions + position[i]) * width +
                       panel * kTileColumns;
          if (start) {
            tile[i][0] += Load(out);
            tile[i][1] += Load(out + kLanes);
          }
          Store(out, tile[i][0]);
          Store(out + kLanes, tile[i][1]);
        }
      }
    }
  });
  return ffi::Error::Success();
}

}  // namespace fer_jax

#endif  // FER_JAX_CONVOLUTION_H_
