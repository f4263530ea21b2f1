// Convolutions and the gradients of their kernels, with products in bfloat16
// and sums in float32, by the processor's instructions for such products.
//
// Both operands are first rounded and packed: 32 images at a time, so that
// every pixel is whole tiles. Padding is never multiplied.

#ifndef FER_JAX_BFLOAT16_H_
#define FER_JAX_BFLOAT16_H_

// Intel's instructions for tiles, in its server processors since 2023.
#if defined(__linux__) && defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define FER_JAX_BFLOAT16

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "convolution.h"
#include "geometry.h"
#include "kernel_gradient.h"
#include "memory.h"
#include "parallel.h"

namespace fer_jax {

// A tile is 16 rows of 32 numbers: rows of the left operand, or pairs of rows
// of the right one, [depth / 2][16 columns][2]. A chunk is two tiles: 32 rows,
// or 32 columns, of 32 terms.
constexpr int kTileSide = 16;
constexpr int kChunkSide = 32;
constexpr int64_t kTileSize = 512;
constexpr int64_t kChunkSize = 1024;
// Positions of maps of this many floats are far apart in memory: some of them
// are computed side by side before they are stored.
constexpr int64_t kLargeMap = 65536;
constexpr int64_t kSideBySide = 24;
// Of the operands of a gradient that one block of work reads: they stay cached.
constexpr int64_t kGradientBytes = 1 << 21;
constexpr int64_t kMaxSplits = 64;

// Consecutive chunks of the left and the right operand, to be multiplied.
struct Chunks {
  const uint16_t* left;
  const uint16_t* right;
};

using Packed = Memory<uint16_t>;

// Returns `low` in the lower and `high` in the upper half, rounded to bfloat16.
inline __m512i Round(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// Returns 32 floats, rounded.
inline __m512i RoundLine(const float* line) {
  return Round(_mm512_loadu_ps(line), _mm512_loadu_ps(line + kTileSide));
}

// Returns pairs (low[i], high[i]), rounded.
inline __m512i RoundPairs(__m512 low, __m512 high) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11,
                                         26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21,
                                         5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, Round(low, high));
}

// Transposes 16 x 16 pairs of numbers.
inline void Transpose(__m512i (&rows)[kTileSide]) {
  for (int step = 1; step < kTileSide; step *= 2) {
    alignas(64) int32_t low[kTileSide], high[kTileSide];
    for (int i = 0; i < kTileSide; ++i) {
      const bool second = i & step;
      low[i] = second ? kTileSide + i - step : i;
      high[i] = second ? kTileSide + i : i + step;
    }
    const __m512i take_low = _mm512_load_si512(low);
    const __m512i take_high = _mm512_load_si512(high);
    for (int i = 0; i < kTileSide; ++i) {
      if (i & step) continue;
      const __m512i a = rows[i], b = rows[i + step];
      rows[i] = _mm512_permutex2var_epi32(a, take_low, b);
      rows[i + step] = _mm512_permutex2var_epi32(a, take_high, b);
    }
  }
}

// Asks the system to let this process use tiles; returns whether it does.
inline bool RequestTiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// Configures the calling thread's eight tiles of 16 rows of 64 bytes.
class Tiles {
 public:
  Tiles() {
    struct {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int i = 0; i < 8; ++i) {
      config.row_bytes[i] = 64;
      config.rows[i] = kTileSide;
    }
    _tile_loadconfig(&config);
  }
  ~Tiles() { _tile_release(); }

  // result[32][32] = sum over the operands and their chunks.
  void Multiply(const Chunks* operands, int64_t num_operands, int64_t chunks,
                float* result, int64_t stride) const {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t i = 0; i < num_operands; ++i) {
      const uint16_t* left = operands[i].left;
      const uint16_t* right = operands[i].right;
      for (int64_t k = 0; k < chunks; ++k) {
        _tile_loadd(4, left, 64);
        _tile_loadd(6, right, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, right + kTileSize, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, left + kTileSize, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        left += kChunkSize;
        right += kChunkSize;
      }
    }
    float* below = result + kTileSide * stride;
    _tile_stored(0, result, 4 * stride);
    _tile_stored(1, result + kTileSide, 4 * stride);
    _tile_stored(2, below, 4 * stride);
    _tile_stored(3, below + kTileSide, 4 * stride);
  }
};

// Feature maps as an operand: [32 images][pixel][channels / 32][chunk].
class PackedMaps {
 public:
  // What the rows of the operand are, and whether it is the left one.
  enum Layout {
    kImagesByChannels,  // left
    kChannelsByImages,  // left
    kImagePairs,        // right; its columns are channels
  };

  PackedMaps(ffi::ThreadPool& pool, const Images& maps, Layout layout)
      : pixels_(maps.dimensions()[1] * maps.dimensions()[2]),
        channels_(maps.dimensions()[3]),
        groups_((maps.dimensions()[0] + kChunkSide - 1) / kChunkSide),
        packed_(groups_ * kChunkSide * pixels_ * channels_) {
    constexpr int64_t kPixels = 16;  // per block of work
    const int64_t batch = maps.dimensions()[0];
    const int64_t runs = (pixels_ + kPixels - 1) / kPixels;
    const std::vector<float> zeros(channels_);
    ParallelFor(pool, groups_ * runs, [&](int64_t block) {
      const int64_t group = block / runs, first = block % runs * kPixels;
      for (int64_t p = first; p < std::min(first + kPixels, pixels_); ++p) {
        const float* lines[kChunkSide];
        for (int i = 0; i < kChunkSide; ++i) {
          const int64_t image = group * kChunkSide + i;
          lines[i] = image < batch
                         ? maps.typed_data() + (image * pixels_ + p) * channels_
                         : zeros.data();
        }
        for (int64_t c = 0; c < channels_; c += kChunkSide) {
          uint16_t* to = At(group, p, c);
          if (layout == kImagesByChannels) {
            for (int i = 0; i < kChunkSide; ++i)
              _mm512_store_si512(to + i * kChunkSide, RoundLine(lines[i] + c));
          } else {
            Pair(lines, c, layout == kChannelsByImages, to);
            Pair(lines, c + kTileSide, layout == kChannelsByImages,
                 to + kTileSize);
          }
        }
      }
    });
  }

  // The number of groups of 32 images; the last one may have fewer.
  int64_t groups() const { return groups_; }

  // Returns the chunk of a group, a pixel and 32 channels.
  uint16_t* At(int64_t group, int64_t pixel, int64_t channel) const {
    return packed_.at(((group * pixels_ + pixel) * channels_ + channel) *
                      kChunkSide);
  }

 private:
  // Packs 16 channels of 32 images.
  static void Pair(const float* const* lines, int64_t channel, bool transpose,
                   uint16_t* to) {
    __m512i rows[kTileSide];
    for (int i = 0; i < kTileSide; ++i)
      rows[i] = RoundPairs(_mm512_loadu_ps(lines[2 * i] + channel),
                           _mm512_loadu_ps(lines[2 * i + 1] + channel));
    if (transpose) Transpose(rows);
    for (int i = 0; i < kTileSide; ++i)
      _mm512_store_si512(to + i * kChunkSide, rows[i]);
  }

  const int64_t pixels_, channels_, groups_;
  const Packed packed_;
};

// Packs a kernel as right operand: [panel][tap][depth / 32][chunk]. It lies as
// [tap][depth][width], or [tap][width][depth] if transposed; each block of work
// reads 32 whole rows of that.
inline Packed PackKernel(ffi::ThreadPool& pool, const float* kernel,
                         int64_t taps, int64_t depth, int64_t width,
                         bool transposed) {
  Packed packed(taps * depth * width);
  const int64_t length = transposed ? depth : width;
  const int64_t blocks = depth * width / length / kChunkSide;
  ParallelFor(pool, taps * blocks, [&](int64_t block) {
    const int64_t tap = block / blocks, row = block % blocks * kChunkSide;
    const float* from = kernel + block * kChunkSide * length;
    for (int64_t column = 0; column < length; column += kChunkSide) {
      const int64_t d = transposed ? column : row;
      const int64_t n = transposed ? row : column;
      uint16_t* to =
          packed.at((n * taps + tap * kChunkSide) * depth + d * kChunkSide);
      for (int side = 0; side < kChunkSide; side += kTileSide) {
        __m512i rows[kTileSide];
        if (transposed) {
          for (int i = 0; i < kTileSide; ++i)
            rows[i] = RoundLine(from + (side + i) * length + column);
          Transpose(rows);
        } else {
          for (int i = 0; i < kTileSide; ++i) {
            const float* line = from + 2 * i * length + column + side;
            rows[i] = RoundPairs(_mm512_loadu_ps(line),
                                 _mm512_loadu_ps(line + length));
          }
        }
        for (int i = 0; i < kTileSide; ++i, to += kChunkSide)
          _mm512_store_si512(to, rows[i]);
      }
    }
  });
  return packed;
}

// Computes a convolution or its transpose.
inline ffi::Error Bfloat16Convolution(ffi::ThreadPool pool, Images source,
                                      Images kernel, ffi::Result<Images> result,
                                      int64_t stride_h, int64_t stride_w,
                                      int64_t top, int64_t left,
                                      bool transposed) {
  const auto s = source.dimensions(), k = kernel.dimensions(),
             r = result->dimensions();
  const std::vector<int> source_pixels =
      SourcePixels(SourceIndices(r[1], s[1], k[0], stride_h, top, transposed),
                   SourceIndices(r[2], s[2], k[1], stride_w, left, transposed),
                   s[2], k[0], k[1]);
  const int64_t batch = s[0], depth = s[3], width = r[3];
  const int64_t taps = k[0] * k[1], positions = r[1] * r[2];
  const PackedMaps maps(pool, source, PackedMaps::kImagesByChannels);
  const Packed weights =
      PackKernel(pool, kernel.typed_data(), taps, depth, width, transposed);
  const int64_t panels = width / kChunkSide;
  const bool large = positions * width >= kLargeMap;
  const int64_t run =
      large ? kSideBySide : std::max<int64_t>(positions / 16, 32);
  const int64_t runs = (positions + run - 1) / run;
  const int64_t spans = large ? 1 : panels;
  ParallelFor(pool, maps.groups() * runs * spans, [&](int64_t block) {
    const int64_t span = block % spans, first = block / spans % runs * run;
    const int64_t group = block / spans / runs, image = group * kChunkSide;
    const int64_t images = std::min<int64_t>(batch - image, kChunkSide);
    const int64_t count = std::min(run, positions - first);
    const int64_t start = span * panels / spans * kChunkSide;
    const int64_t end = (span + 1) * panels / spans * kChunkSide;
    const bool direct = !large && images == kChunkSide;
    float* whole = result->typed_data() + (image * positions + first) * width;
    const Memory<float> side_by_side(direct ? 0 : kChunkSide * count * width);
    float* out = direct ? whole : side_by_side.at(0);
    const int64_t stride = (direct ? positions : count) * width;
    std::vector<Chunks> operands(taps);
    const Tiles tiles;
    for (int64_t i = 0; i < count; ++i)
      for (int64_t n = start; n < end; n += kChunkSide) {
        int64_t used = 0;
        for (int64_t tap = 0; tap < taps; ++tap)
          if (const int pixel = source_pixels[(first + i) * taps + tap];
              pixel >= 0)
            operands[used++] = {
                maps.At(group, pixel, 0),
                weights.at((n * taps + tap * kChunkSide) * depth)};
        tiles.Multiply(operands.data(), used, depth / kChunkSide,
                       out + i * width + n, stride);
      }
    if (direct) return;
    for (int64_t i = 0; i < images; ++i)
      for (int64_t j = 0; j < count; ++j)
        std::copy(out + (i * count + j) * width + start,
                  out + (i * count + j) * width + end,
                  whole + (i * positions + j) * width + start);
  });
  return ffi::Error::Success();
}

// Computes the gradient of a convolution's kernel.
inline ffi::Error Bfloat16KernelGradient(ffi::ThreadPool pool, Images x,
                                         Images gradient,
                                         ffi::Result<Images> result,
                                         int64_t stride_h, int64_t stride_w,
                                         int64_t top, int64_t left) {
  const auto s = x.dimensions(), g = gradient.dimensions(),
             k = result->dimensions();
  const std::vector<int> source_pixels = SourcePixels(
      SourceIndices(g[1], s[1], k[0], stride_h, top, false),
      SourceIndices(g[2], s[2], k[1], stride_w, left, false), s[2], k[0], k[1]);
  const int64_t inputs = s[3], outputs = g[3], taps = k[0] * k[1];
  const int64_t positions = g[1] * g[2], size = taps * inputs * outputs;
  const PackedMaps lefts(pool, x, PackedMaps::kChannelsByImages);
  const PackedMaps rights(pool, gradient, PackedMaps::kImagePairs);

  // Terms are (group of images, position); each split adds some of them.
  const int64_t terms = lefts.groups() * positions;
  const int64_t bytes = terms * (inputs + outputs) * kChunkSide * 2;
  const int64_t splits = std::clamp<int64_t>(
      bytes / kGradientBytes, 1, std::min<int64_t>(kMaxSplits, terms));
  const int64_t heights = inputs / kChunkSide, panels = outputs / kChunkSide;
  const int64_t tiles = taps * heights * panels;
  const Memory<float> partial(splits > 1 ? splits * size : 0);
  float* whole = result->typed_data();
  ParallelFor(pool, tiles * splits, [&](int64_t block) {
    const int64_t split = block / tiles, tap = block % tiles / panels / heights;
    const int64_t m = block / panels % heights * kChunkSide;
    const int64_t n = block % panels * kChunkSide;
    const int64_t first = split * terms / splits;
    const int64_t last = (split + 1) * terms / splits;
    std::vector<Chunks> operands(last - first);
    int64_t used = 0, group = first / positions, position = first % positions;
    for (int64_t term = first; term < last; ++term) {
      if (const int pixel = source_pixels[position * taps + tap]; pixel >= 0)
        operands[used++] = {lefts.At(group, pixel, m),
                            rights.At(group, position, n)};
      if (++position == positions) position = 0, ++group;
    }
    float* sums = (splits > 1 ? partial.at(split * size) : whole) +
                  (tap * inputs + m) * outputs + n;
    Tiles().Multiply(operands.data(), used, 1, sums, outputs);
  });
  if (splits > 1) AddSplits(pool, partial.at(0), splits, size, whole);
  return ffi::Error::Success();
}

}  // namespace fer_jax

#endif  // FER_JAX_BFLOAT16

#endif  // FER_JAX_BFLOAT16_H_
