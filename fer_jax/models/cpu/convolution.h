// Convolutions as products of matrices, and the gradients of their kernels.

#ifndef FER_JAX_CONVOLUTION_H_
#define FER_JAX_CONVOLUTION_H_

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "geometry.h"
#include "parallel.h"

namespace fer_jax {

using Images = ffi::Buffer<ffi::F32, 4>;

// Products of matrices, in tiles of kHigh x kWide that stay in registers.
constexpr int kHigh = 12;       // rows of a tile
constexpr int kWide = 32;       // columns, two vectors
constexpr int64_t kDeep = 256;  // terms added before a tile is put down

// tile[r][n] += sum over k of lines[r][k] * panel[k * stride + n].
template <int kRows>
void MultiplyRows(const float* const* lines, const float* panel, int64_t stride,
                  int64_t depth, Vector (&tile)[kHigh][2]) {
  Vector sum[kRows][2];  // in registers: nothing else can point here
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 2; ++v) sum[r][v] = tile[r][v];
  for (int64_t k = 0; k < depth; ++k) {
    const Vector low = Load(panel + k * stride);
    const Vector high = Load(panel + k * stride + kLanes);
    for (int r = 0; r < kRows; ++r) {
      const float a = lines[r][k];
      sum[r][0] += a * low;
      sum[r][1] += a * high;
    }
  }
  for (int r = 0; r < kRows; ++r)
    for (int v = 0; v < 2; ++v) tile[r][v] = sum[r][v];
}

// For as many rows as there are, or a few more; their lines must be readable.
inline void MultiplyRows(int rows, const float* const* lines,
                         const float* panel, int64_t stride, int64_t depth,
                         Vector (&tile)[kHigh][2]) {
  const auto multiply = rows <= 4    ? MultiplyRows<4>
                        : rows <= 9  ? MultiplyRows<9>
                        : rows <= 10 ? MultiplyRows<10>
                        : rows <= 11 ? MultiplyRows<11>
                                     : MultiplyRows<kHigh>;
  multiply(lines, panel, stride, depth, tile);
}

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

  // What is used once or twice is read as it lies.
  const bool direct = !transposed && batch * places <= 4 * kHigh;
  const std::vector<float> packed =
      direct ? std::vector<float>()
             : Pack(pool, kernel.typed_data(), taps, depth, width, transposed);
  const int64_t stride = direct ? width : kWide;

  const bool by_images = batch >= 8;
  const int64_t all = by_images ? batch : batch * places;  // in rows
  const int64_t groups = (all + kHigh - 1) / kHigh;
  const int64_t tiles = by_images ? places : 1;  // of a group
  const std::vector<float> nothing(depth);
  ParallelFor(pool, panels * groups, [&](int64_t block) {
    const int64_t panel = block % panels, group = block / panels;
    const int64_t first = group * all / groups;
    const int count = static_cast<int>((group + 1) * all / groups - first);
    const float* weights = direct
                               ? kernel.typed_data() + panel * kWide
                               : packed.data() + panel * taps * depth * kWide;
    for (int64_t start = 0; start < depth; start += kDeep) {
      const int64_t some = std::min(kDeep, depth - start);
      for (int64_t one = 0; one < tiles; ++one) {
        int64_t image[kHigh], place[kHigh];
        for (int i = 0; i < kHigh; ++i) {
          const int64_t row = first + std::min(i, count - 1);
          image[i] = by_images ? row : row / places;
          place[i] = by_images ? one : row % places;
        }
        Vector tile[kHigh][2] = {};
        for (int64_t tap = 0; tap < taps; ++tap) {
          const float* line[kHigh];
          bool met = false;
          for (int i = 0; i < kHigh; ++i) {
            const int pixel = pixel_at[place[i] * taps + tap];
            met |= pixel >= 0;
            line[i] = pixel < 0
                          ? nothing.data()
                          : source.typed_data() +
                                (image[i] * pixels + pixel) * depth + start;
          }
          if (met)
            MultiplyRows(count, line, weights + (tap * depth + start) * stride,
                         stride, some, tile);
        }
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

// Rows of a tile of a kernel's gradient.
constexpr int kTall = 8;
constexpr int64_t kHeight = 64;  // input channels that a block of work takes

// sums[m][n] += sum over k of left[k][m] * right[k][n], both packed.
inline void OuterProducts(const float* left, const float* right, int64_t depth,
                          float* sums, int64_t stride) {
  Vector tile[kTall][2];
  for (int m = 0; m < kTall; ++m) {
    tile[m][0] = Load(sums + m * stride);
    tile[m][1] = Load(sums + m * stride + kLanes);
  }
  for (int64_t k = 0; k < depth; ++k) {
    const Vector low = Load(right + k * kWide);
    const Vector high = Load(right + k * kWide + kLanes);
    for (int m = 0; m < kTall; ++m) {
      const float a = left[k * kTall + m];
      tile[m][0] += a * low;
      tile[m][1] += a * high;
    }
  }
  for (int m = 0; m < kTall; ++m) {
    Store(sums + m * stride, tile[m][0]);
    Store(sums + m * stride + kLanes, tile[m][1]);
  }
}

// The gradient of a convolution's kernel.
inline ffi::Error KernelGradient(ffi::ThreadPool pool, Images x,
                                 Images gradient, ffi::Result<Images> result,
                                 int64_t stride_h, int64_t stride_w,
                                 int64_t top, int64_t left) {
  const auto s = x.dimensions(), g = gradient.dimensions(),
             k = result->dimensions();
  const auto rows = Meetings(g[1], s[1], k[0], stride_h, top, false);
  const auto columns = Meetings(g[2], s[2], k[1], stride_w, left, false);
  const std::vector<int> pixel_at = PixelAt(rows, columns, s[2], k[0], k[1]);
  const int64_t batch = s[0], inputs = s[3], outputs = g[3];
  const int64_t taps = k[0] * k[1], pixels = s[1] * s[2];
  const int64_t places = g[1] * g[2], size = taps * inputs * outputs;

  // Where a tap meets: pixels of x, places of the gradient.
  std::vector<std::vector<std::pair<int64_t, int64_t>>> met(taps);
  for (int64_t place = 0; place < places; ++place)
    for (int64_t tap = 0; tap < taps; ++tap)
      if (const int pixel = pixel_at[place * taps + tap]; pixel >= 0)
        met[tap].push_back({pixel, place});

  const int64_t heights = (inputs + kHeight - 1) / kHeight;
  const int64_t tiles = taps * heights;
  const int64_t splits =
      std::clamp<int64_t>(std::min(32 / tiles, places * batch / 512), 1, batch);
  std::vector<float> partial(splits > 1 ? splits * size : 0);
  float* whole = result->typed_data();
  ParallelFor(pool, tiles * splits, [&](int64_t block) {
    const int64_t split = block / tiles, tap = block % tiles / heights;
    const int64_t m0 = block % heights * kHeight;
    const int64_t height = std::min(kHeight, inputs - m0);
    const int64_t b0 = split * batch / splits;
    const int64_t images = (split + 1) * batch / splits - b0;
    float* sums = (splits > 1 ? partial.data() + split * size : whole) +
                  (tap * inputs + m0) * outputs;
    std::fill(sums, sums + height * outputs, 0.0f);
    const auto& pairs = met[tap];
    const int64_t terms = static_cast<int64_t>(pairs.size()) * images;
    std::vector<float> a(kDeep * height), b(kDeep * kWide);
    std::vector<const float*> from(kDeep), with(kDeep);
    for (int64_t start = 0; start < terms; start += kDeep) {
      const int64_t depth = std::min(kDeep, terms - start);
      for (int64_t i = 0; i < depth; ++i) {
        const auto& [pixel, place] = pairs[(start + i) % pairs.size()];
        const int64_t image = b0 + (start + i) / pairs.size();
        from[i] = x.typed_data() + (image * pixels + pixel) * inputs + m0;
        with[i] = gradient.typed_data() + (image * places + place) * outputs;
      }
      for (int64_t m = 0; m < height; m += kTall)
        for (int64_t i = 0; i < depth; ++i)
          std::copy_n(from[i] + m, kTall, a.data() + m * depth + i * kTall);
      for (int64_t n = 0; n < outputs; n += kWide) {
        for (int64_t i = 0; i < depth; ++i) {
          Store(b.data() + i * kWide, Load(with[i] + n));
          Store(b.data() + i * kWide + kLanes, Load(with[i] + n + kLanes));
        }
        for (int64_t m = 0; m < height; m += kTall)
          OuterProducts(a.data() + m * depth, b.data(), depth,
                        sums + m * outputs + n, outputs);
      }
    }
  });
  if (splits > 1) {
    constexpr int64_t kPiece = 4096;
    ParallelFor(pool, (size + kPiece - 1) / kPiece, [&](int64_t block) {
      const int64_t end = std::min(size, (block + 1) * kPiece);
      for (int64_t i = block * kPiece; i < end; ++i) {
        float sum = partial[i];
        for (int64_t j = 1; j < splits; ++j) sum += partial[j * size + i];
        whole[i] = sum;
      }
    });
  }
  return ffi::Error::Success();
}

}  // namespace fer_jax

#endif  // FER_JAX_CONVOLUTION_H_
