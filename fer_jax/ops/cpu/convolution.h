// Convolutions as products of matrices.

#ifndef FER_JAX_CONVOLUTION_H_
#define FER_JAX_CONVOLUTION_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "geometry.h"
#include "parallel.h"

namespace fer_jax {

using Images = ffi::Buffer<ffi::F32, 4>;

// Products of matrices, in tiles of kHigh x kWide that stay in registers.
constexpr int kHigh = 12;       // rows of a tile
constexpr int kWide = 32;       // columns, two vectors
constexpr int64_t kDeep = 256;  // terms added before a tile is put down

// Rows of a source and the weights that they are multiplied with.
struct Factors {
  const float* line[kHigh];
  const float* panel;
};

// tile[r][n] += sum over factors and k of line[r][k] * panel[k * stride + n].
// `kAhead` rows of the panel further on are fetched by the way.
template <int kRows, int kAhead>
void MultiplyRows(const Factors* factors, int64_t num_factors, int64_t stride,
                  int64_t depth, Vector (&tile)[kHigh][2]) {
  Vector sum[kRows][2];  // in registers: nothing else can point here
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 2; ++v) sum[r][v] = tile[r][v];
  for (int64_t i = 0; i < num_factors; ++i) {
    const float* panel = factors[i].panel;
    const float* line[kRows];
    for (int r = 0; r < kRows; ++r) line[r] = factors[i].line[r];
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

// For as many rows as there are, or a few more; their lines must be readable.
template <int kAhead = 0>
void MultiplyRows(int rows, const Factors* factors, int64_t num_factors,
                  int64_t stride, int64_t depth, Vector (&tile)[kHigh][2]) {
  const auto multiply = rows <= 4    ? MultiplyRows<4, kAhead>
                        : rows <= 9  ? MultiplyRows<9, kAhead>
                        : rows <= 10 ? MultiplyRows<10, kAhead>
                        : rows <= 11 ? MultiplyRows<11, kAhead>
                                     : MultiplyRows<kHigh, kAhead>;
  multiply(factors, num_factors, stride, depth, tile);
}

// Where the kernel meets the source: see `PixelAt`.
struct Lines {
  const float* source;
  int64_t pixels, depth, places, taps;
  const std::vector<int>& pixel_at;
  const std::vector<float> nothing;

  // The source's line that a tap multiplies for a place of an image.
  const float* At(int64_t image, int64_t place, int64_t tap) const {
    const int pixel = pixel_at[place * taps + tap];
    return pixel < 0 ? nothing.data()
                     : source + (image * pixels + pixel) * depth;
  }

  // Fetches what the last tap multiplies for the same place of some images:
  // of all that a place needs, what the place before it did not.
  void Fetch(const int64_t* images, int count, int64_t place, int64_t start,
             int64_t some) const {
    if (pixel_at[(place + 1) * taps - 1] < 0) return;
    for (int i = 0; i < count; ++i) {
      const float* line = At(images[i], place, taps - 1) + start;
      for (int64_t d = 0; d < some; d += kLanes) __builtin_prefetch(line + d);
    }
  }
};

// The kernel as [panel][tap][depth][kWide].
inline std::vector<float> Pack(ffi::ThreadPool& pool, const float* kernel,
                               int64_t taps, int64_t depth, int64_t width,
                               bool transposed) {
  std::vector<float> packed(taps * depth * width);
  ParallelFor(pool, width / kWide * taps, [&](int64_t block) {
    const int64_t panel = block / taps, tap = block % taps;
    float* to = packed.data() + block * depth * kWide;
    if (!transposed) {
      const float* p = kernel + tap * depth * width + panel * kWide;
      for (int64_t d = 0; d < depth; ++d)
        std::copy_n(p + d * width, kWide, to + d * kWide);
    } else {
      const float* p = kernel + (tap * width + panel * kWide) * depth;
      for (int64_t n = 0; n < kWide; ++n)
        for (int64_t d = 0; d < depth; ++d)
          to[d * kWide + n] = p[n * depth + d];
    }
  });
  return packed;
}

// A convolution that has kHigh rows or fewer. Most of what is read are the
// weights: they are read once and in their order, for all rows.
inline void MultiplyFewRows(ffi::ThreadPool& pool, const Lines& lines,
                            const float* kernel, int rows, int64_t width,
                            float* result) {
  constexpr int64_t kRun = 16;    // of the depth, which is a multiple of it
  constexpr int64_t kSpan = 256;  // of the width
  const int64_t runs_a_tap = lines.depth / kRun, panels = width / kWide;
  const int64_t runs = lines.taps * runs_a_tap;
  const int64_t spans = (width + kSpan - 1) / kSpan;
  const int64_t splits = std::clamp<int64_t>(16 / spans, 1, runs);
  const int64_t size = rows * width;
  std::vector<float> partial(splits > 1 ? splits * size : 0);
  if (splits == 1) std::fill_n(result, size, 0.0f);
  ParallelFor(pool, splits * spans, [&](int64_t block) {
    const int64_t split = block / spans, span = block % spans;
    float* sums = splits > 1 ? partial.data() + split * size : result;
    const int64_t first = span * panels / spans * kWide;
    const int64_t last = (span + 1) * panels / spans * kWide;
    const int64_t end = (split + 1) * runs / splits;
    for (int64_t run = split * runs / splits; run < end; ++run) {
      const int64_t tap = run / runs_a_tap, start = run % runs_a_tap * kRun;
      Factors factors;
      bool met = false;
      for (int i = 0; i < kHigh; ++i) {
        const int64_t row = std::min(i, rows - 1);
        factors.line[i] = lines.At(row / lines.places, row % lines.places, tap);
        met |= factors.line[i] != lines.nothing.data();
        factors.line[i] += start;
      }
      if (!met) continue;
      const float* weights = kernel + (tap * lines.depth + start) * width;
      for (int64_t n = first; n < last; n += kWide) {
        Vector tile[kHigh][2] = {};
        for (int i = 0; i < rows; ++i)
          for (int v = 0; v < 2; ++v)
            tile[i][v] = Load(sums + i * width + n + v * kLanes);
        factors.panel = weights + n;
        MultiplyRows<kRun>(rows, &factors, 1, width, kRun, tile);
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

// A convolution, or its transpose, as products. The rows of a tile are one
// place of several images, so that padding is never multiplied; where images
// are few, they are several places.
inline ffi::Error Convolution(ffi::ThreadPool pool, Images source,
                              Images kernel, ffi::Result<Images> result,
                              int64_t stride_h, int64_t stride_w, int64_t top,
                              int64_t left, bool transposed) {
  const auto s = source.dimensions(), k = kernel.dimensions(),
             r = result->dimensions();
  const auto rows = Meetings(r[1], s[1], k[0], stride_h, top, transposed);
  const auto columns = Meetings(r[2], s[2], k[1], stride_w, left, transposed);
  const std::vector<int> pixel_at = PixelAt(rows, columns, s[2], k[0], k[1]);
  const int64_t batch = s[0], depth = s[3], width = r[3];
  const int64_t taps = k[0] * k[1], places = r[1] * r[2];
  const int64_t pixels = s[1] * s[2], panels = width / kWide;

  const Lines lines{
      source.typed_data(),      pixels, depth, places, taps, pixel_at,
      std::vector<float>(depth)};
  if (!transposed && batch * places <= kHigh) {
    MultiplyFewRows(pool, lines, kernel.typed_data(),
                    static_cast<int>(batch * places), width,
                    result->typed_data());
    return ffi::Error::Success();
  }

  // What is used a few times is read as it lies.
  const bool direct = !transposed && batch * places <= 12 * kHigh;
  const std::vector<float> packed =
      direct ? std::vector<float>()
             : Pack(pool, kernel.typed_data(), taps, depth, width, transposed);
  const int64_t stride = direct ? width : kWide;

  const bool by_images = batch >= 8;
  const int64_t all = by_images ? batch : batch * places;  // in rows
  const int64_t groups = (all + kHigh - 1) / kHigh;
  const int64_t tiles = by_images ? places : 1;  // of a group
  // Of images and weights, the larger ones come by once.
  const bool images_stay = taps * width < batch * pixels;
  ParallelFor(pool, panels * groups, [&](int64_t block) {
    const int64_t panel = images_stay ? block % panels : block / groups;
    const int64_t group = images_stay ? block / panels : block % groups;
    const int64_t first = group * all / groups;
    const int count = static_cast<int>((group + 1) * all / groups - first);
    const float* weights = direct
                               ? kernel.typed_data() + panel * kWide
                               : packed.data() + panel * taps * depth * kWide;
    std::vector<Factors> factors(taps);
    for (int64_t start = 0; start < depth; start += kDeep) {
      const int64_t some = std::min(kDeep, depth - start);
      for (int64_t one = 0; one < tiles; ++one) {
        int64_t image[kHigh], place[kHigh];
        for (int i = 0; i < kHigh; ++i) {
          const int64_t row = first + std::min(i, count - 1);
          image[i] = by_images ? row : row / places;
          place[i] = by_images ? one : row % places;
        }
        int64_t met = 0;
        for (int64_t tap = 0; tap < taps; ++tap) {
          Factors& f = factors[met];
          bool any = false;
          for (int i = 0; i < kHigh; ++i) {
            f.line[i] = lines.At(image[i], place[i], tap);
            any |= f.line[i] != lines.nothing.data();
            f.line[i] += start;
          }
          f.panel = weights + (tap * depth + start) * stride;
          met += any;
        }
        if (one + 1 < tiles) lines.Fetch(image, count, one + 1, start, some);
        Vector tile[kHigh][2] = {};
        if (direct)
          MultiplyRows<16>(count, factors.data(), met, stride, some, tile);
        else
          MultiplyRows(count, factors.data(), met, stride, some, tile);
        for (int i = 0; i < count; ++i) {
          float* out = result->typed_data() +
                       (image[i] * places + place[i]) * width + panel * kWide;
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
