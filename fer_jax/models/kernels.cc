// Kernels for what XLA's CPU back end is slow at: depthwise convolutions and
// sums over rows. Float32, NHWC; kernels.py compiles and calls them.
//
// Every kernel cuts its work into blocks whose number depends on shapes alone,
// and adds partial sums in their order: results do not depend on the threads.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

constexpr int kLanes = 16;
// A vector of floats that may lie anywhere; compilers split it where the
// machine's are shorter.
typedef float Vector __attribute__((vector_size(4 * kLanes), aligned(4)));

inline Vector Load(const float* p) {
  return *reinterpret_cast<const Vector*>(p);
}
inline void Store(float* p, Vector v) { *reinterpret_cast<Vector*>(p) = v; }

// Runs work(0) ... work(count - 1) on the pool's threads and this one.
//
// This thread takes blocks too and waits only for blocks that have begun, so
// it never waits for a thread that waits for it.
template <typename Work>
void ParallelFor(ffi::ThreadPool& pool, int64_t count, const Work& work) {
  struct State {
    std::atomic<int64_t> next{0};
    int64_t done = 0;
    std::mutex mutex;
    std::condition_variable all_done;
  };
  auto state = std::make_shared<State>();
  // `work` is only touched while blocks are left, so while it lives.
  const Work* borrowed = &work;
  auto take = [state, count, borrowed] {
    int64_t mine = 0;
    for (int64_t i; (i = state->next.fetch_add(1)) < count; ++mine)
      (*borrowed)(i);
    if (mine == 0) return;
    std::lock_guard<std::mutex> lock(state->mutex);
    state->done += mine;
    if (state->done == count) state->all_done.notify_one();
  };
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), count) - 1;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(decltype(take)(take));
  take();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_done.wait(lock, [&] { return state->done == count; });
}

// Where each tap of a kernel meets the source, for every place of the result
// along one axis: -1 where it does not.
std::vector<int> Meetings(int64_t result, int64_t source, int64_t taps,
                          int64_t stride, int64_t pad, bool transposed) {
  std::vector<int> at(result * taps, -1);
  for (int64_t r = 0; r < result; ++r)
    for (int64_t t = 0; t < taps; ++t) {
      int64_t s = transposed ? r + pad - t : r * stride + t - pad;
      if (transposed) {
        if (s < 0 || s % stride) continue;
        s /= stride;
      }
      if (s >= 0 && s < source) at[r * taps + t] = static_cast<int>(s);
    }
  return at;
}

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

// A depthwise convolution of `source`, or its transpose.
void Gather(ffi::ThreadPool& pool, const float* source, const float* kernel,
            float* result, int64_t batch, int64_t source_h, int64_t source_w,
            int64_t result_h, int64_t result_w, int64_t channels,
            int64_t kernel_h, int64_t kernel_w, const std::vector<int>& rows,
            const std::vector<int>& columns) {
  const int64_t num_rows = batch * result_h;
  const int64_t rows_a_block =
      std::max<int64_t>(1, 65536 / (result_w * channels));
  const int64_t blocks = (num_rows + rows_a_block - 1) / rows_a_block;
  ParallelFor(pool, blocks, [&](int64_t block) {
    std::vector<Tap> taps(kernel_h * kernel_w);
    const int64_t end = std::min(num_rows, (block + 1) * rows_a_block);
    for (int64_t row = block * rows_a_block; row < end; ++row) {
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
          for (int t = 0; t < n; ++t) sum += taps[t].source[c] * taps[t].kernel[c];
          out[c] = sum;
        }
      }
    }
  });
}

using Images = ffi::Buffer<ffi::F32, 4>;

// Forward: source is x, result y. Transposed: source is y's gradient.
ffi::Error Depthwise(ffi::ThreadPool pool, Images source, Images kernel,
                     ffi::Result<Images> result, int64_t stride_h,
                     int64_t stride_w, int64_t top, int64_t left,
                     bool transposed) {
  const auto s = source.dimensions(), k = kernel.dimensions(),
             r = result->dimensions();
  const auto rows = Meetings(r[1], s[1], k[0], stride_h, top, transposed);
  const auto columns = Meetings(r[2], s[2], k[1], stride_w, left, transposed);
  Gather(pool, source.typed_data(), kernel.typed_data(), result->typed_data(),
         s[0], s[1], s[2], r[1], r[2], s[3], k[0], k[1], rows, columns);
  return ffi::Error::Success();
}

// kGroup taps of one row of the kernel, kVectors of channels: the gradient is
// read once for all of them.
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
      for (int v = 0; v < kVectors; ++v) sum[t][v] += g[v] * Load(p + v * kLanes);
    }
  }
  for (int t = 0; t < num_taps; ++t)
    for (int v = 0; v < kVectors; ++v)
      Store(sums + t * channels + v * kLanes, sum[t][v]);
}

void KernelSumsTail(const float* x, const float* gradient, float* sums,
                    int64_t channels, int64_t count, int64_t out_w,
                    int num_taps, const int* columns, int64_t kernel_w) {
  for (int64_t w = 0; w < out_w; ++w)
    for (int t = 0; t < num_taps; ++t) {
      const int at = columns[w * kernel_w + t];
      if (at < 0) continue;
      for (int64_t c = 0; c < count; ++c)
        sums[t * channels + c] += gradient[w * channels + c] * x[at * channels + c];
    }
}

ffi::Error DepthwiseKernelGradient(ffi::ThreadPool pool, Images x,
                                   Images gradient, ffi::Result<Images> result,
                                   int64_t stride_h, int64_t stride_w,
                                   int64_t top, int64_t left) {
  const auto s = x.dimensions(), g = gradient.dimensions(),
             k = result->dimensions();
  const int64_t channels = s[3], kernel_h = k[0], kernel_w = k[1];
  const auto rows = Meetings(g[1], s[1], kernel_h, stride_h, top, false);
  const auto columns = Meetings(g[2], s[2], kernel_w, stride_w, left, false);
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
            const int n = static_cast<int>(std::min<int64_t>(kGroup, kernel_w - j));
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

// Products of matrices, in tiles of kHigh x kWide that stay in registers.
constexpr int kHigh = 12;  // rows of a tile
constexpr int kWide = 32;  // columns, two vectors
constexpr int64_t kDeep = 256;  // terms added before a tile is put down

// tile[r][n] += sum over k of rows[r][k] * panel[k][n].
template <int kRows>
inline void MultiplyRows(const float* const* rows, int64_t offset,
                         const float* panel, int64_t depth,
                         Vector (&tile)[kHigh][2]) {
  for (int64_t k = 0; k < depth; ++k) {
    const Vector low = Load(panel + k * kWide);
    const Vector high = Load(panel + k * kWide + kLanes);
    for (int r = 0; r < kRows; ++r) {
      const float a = rows[r][offset + k];
      tile[r][0] += a * low;
      tile[r][1] += a * high;
    }
  }
}

// What a place of the result is made of: pixels of the source, and taps.
struct Meeting {
  int64_t pixel;
  int64_t tap;
};

std::vector<std::vector<Meeting>> AllMeetings(const std::vector<int>& rows,
                                              const std::vector<int>& columns,
                                              int64_t result_h,
                                              int64_t result_w,
                                              int64_t source_w,
                                              int64_t kernel_h,
                                              int64_t kernel_w) {
  std::vector<std::vector<Meeting>> all(result_h * result_w);
  for (int64_t h = 0; h < result_h; ++h)
    for (int64_t w = 0; w < result_w; ++w)
      for (int64_t i = 0; i < kernel_h; ++i)
        for (int64_t j = 0; j < kernel_w; ++j) {
          const int row = rows[h * kernel_h + i];
          const int column = columns[w * kernel_w + j];
          if (row >= 0 && column >= 0)
            all[h * result_w + w].push_back(
                {row * source_w + column, i * kernel_w + j});
        }
  return all;
}

// A convolution, or its transpose: as a product for every place of the result
// with a tile of images as rows, so that padding is never multiplied.
ffi::Error Convolution(ffi::ThreadPool pool, Images source, Images kernel,
                       ffi::Result<Images> result, int64_t stride_h,
                       int64_t stride_w, int64_t top, int64_t left,
                       bool transposed) {
  const auto s = source.dimensions(), k = kernel.dimensions(),
             r = result->dimensions();
  const auto rows = Meetings(r[1], s[1], k[0], stride_h, top, transposed);
  const auto columns = Meetings(r[2], s[2], k[1], stride_w, left, transposed);
  const auto meetings =
      AllMeetings(rows, columns, r[1], r[2], s[2], k[0], k[1]);
  const int64_t batch = s[0], depth = s[3], width = r[3];
  const int64_t taps = k[0] * k[1], places = r[1] * r[2];
  const int64_t pixels = s[1] * s[2];
  const int64_t panels = width / kWide;

  // The kernel as [panel][tap][depth][kWide].
  std::vector<float> packed(taps * depth * width);
  const float* from = kernel.typed_data();
  ParallelFor(pool, panels * taps, [&](int64_t block) {
    const int64_t panel = block / taps, tap = block % taps;
    float* to = packed.data() + block * depth * kWide;
    if (!transposed) {
      const float* p = from + tap * depth * width + panel * kWide;
      for (int64_t d = 0; d < depth; ++d)
        std::copy_n(p + d * width, kWide, to + d * kWide);
    } else {
      const float* p = from + (tap * width + panel * kWide) * depth;
      for (int64_t n = 0; n < kWide; ++n)
        for (int64_t d = 0; d < depth; ++d) to[d * kWide + n] = p[n * depth + d];
    }
  });

  const int64_t groups = (batch + kHigh - 1) / kHigh;
  ParallelFor(pool, panels * groups, [&](int64_t block) {
    const int64_t panel = block % panels, first = block / panels * kHigh;
    const int count = static_cast<int>(std::min<int64_t>(kHigh, batch - first));
    const float* weights = packed.data() + panel * taps * depth * kWide;
    for (int64_t start = 0; start < depth; start += kDeep) {
      const int64_t some = std::min(kDeep, depth - start);
      for (int64_t place = 0; place < places; ++place) {
        Vector tile[kHigh][2] = {};
        for (const Meeting& met : meetings[place]) {
          const float* line[kHigh];
          for (int i = 0; i < kHigh; ++i)
            line[i] = source.typed_data() +
                      ((first + std::min(i, count - 1)) * pixels + met.pixel) *
                          depth;
          MultiplyRows<kHigh>(line, start,
                              weights + (met.tap * depth + start) * kWide,
                              some, tile);
        }
        for (int i = 0; i < count; ++i) {
          float* out = result->typed_data() +
                       ((first + i) * places + place) * width + panel * kWide;
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
ffi::Error KernelGradient(ffi::ThreadPool pool, Images x, Images gradient,
                          ffi::Result<Images> result, int64_t stride_h,
                          int64_t stride_w, int64_t top, int64_t left) {
  const auto s = x.dimensions(), g = gradient.dimensions(),
             k = result->dimensions();
  const auto rows = Meetings(g[1], s[1], k[0], stride_h, top, false);
  const auto columns = Meetings(g[2], s[2], k[1], stride_w, left, false);
  const auto meetings =
      AllMeetings(rows, columns, g[1], g[2], s[2], k[0], k[1]);
  const int64_t batch = s[0], inputs = s[3], outputs = g[3];
  const int64_t taps = k[0] * k[1], pixels = s[1] * s[2];
  const int64_t places = g[1] * g[2], size = taps * inputs * outputs;

  // Where a tap meets: pixels of x, places of the gradient.
  std::vector<std::vector<std::pair<int64_t, int64_t>>> met(taps);
  for (int64_t place = 0; place < places; ++place)
    for (const Meeting& m : meetings[place])
      met[m.tap].push_back({m.pixel, place});

  const int64_t heights = (inputs + kHeight - 1) / kHeight;
  const int64_t tiles = taps * heights;
  const int64_t splits = std::clamp<int64_t>(
      std::min(32 / tiles, places * batch / 512), 1, batch);
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

// Rows that are added in registers before they join the sums so far.
constexpr int64_t kRun = 32;

// first[c] += sum of a, second[c] += sum of a * (b - shift), over rows.
template <int kVectors>
void AddRows(const float* a, const float* b, const float* shift,
             int64_t num_rows, int64_t channels, float* first, float* second) {
  Vector total[kVectors] = {}, products[kVectors] = {}, center[kVectors];
  for (int v = 0; v < kVectors; ++v) center[v] = Load(shift + v * kLanes);
  for (int64_t row = 0; row < num_rows;) {
    const int64_t end = std::min(num_rows, row + kRun);
    Vector one[kVectors] = {}, two[kVectors] = {};
    for (; row < end; ++row)
      for (int v = 0; v < kVectors; ++v) {
        const Vector of_a = Load(a + row * channels + v * kLanes);
        one[v] += of_a;
        two[v] += of_a * (Load(b + row * channels + v * kLanes) - center[v]);
      }
    for (int v = 0; v < kVectors; ++v) total[v] += one[v], products[v] += two[v];
  }
  for (int v = 0; v < kVectors; ++v) {
    Store(first + v * kLanes, total[v]);
    Store(second + v * kLanes, products[v]);
  }
}

using Rows = ffi::Buffer<ffi::F32, 2>;
using Channels = ffi::Buffer<ffi::F32, 1>;

// Sums over rows: of a, and of a * (b - shift).
ffi::Error RowSums(ffi::ThreadPool pool, Rows a, Rows b, Channels shift,
                   ffi::Result<Channels> first, ffi::Result<Channels> second) {
  const int64_t num_rows = a.dimensions()[0], channels = a.dimensions()[1];
  const int64_t blocks =
      std::clamp<int64_t>(num_rows * channels / 32768, 1, 16);
  std::vector<float> partial(2 * blocks * channels);
  ParallelFor(pool, blocks, [&](int64_t block) {
    const int64_t start = block * num_rows / blocks;
    const int64_t count = (block + 1) * num_rows / blocks - start;
    const float* from_a = a.typed_data() + start * channels;
    const float* from_b = b.typed_data() + start * channels;
    const float* center = shift.typed_data();
    float* one = partial.data() + 2 * block * channels;
    float* two = one + channels;
    int64_t c = 0;
    for (; c + 4 * kLanes <= channels; c += 4 * kLanes)
      AddRows<4>(from_a + c, from_b + c, center + c, count, channels, one + c,
                 two + c);
    for (; c + kLanes <= channels; c += kLanes)
      AddRows<1>(from_a + c, from_b + c, center + c, count, channels, one + c,
                 two + c);
    for (; c < channels; ++c) {
      one[c] = two[c] = 0;
      for (int64_t row = 0; row < count; ++row) {
        const float of_a = from_a[row * channels + c];
        one[c] += of_a;
        two[c] += of_a * (from_b[row * channels + c] - center[c]);
      }
    }
  });
  float* one = first->typed_data();
  float* two = second->typed_data();
  std::fill(one, one + channels, 0.0f);
  std::fill(two, two + channels, 0.0f);
  for (int64_t block = 0; block < blocks; ++block) {
    const float* from = partial.data() + 2 * block * channels;
    for (int64_t c = 0; c < channels; ++c) {
      one[c] += from[c];
      two[c] += from[channels + c];
    }
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_depthwise, Depthwise,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Images>()
                                  .Arg<Images>()
                                  .Ret<Images>()
                                  .Attr<int64_t>("stride_h")
                                  .Attr<int64_t>("stride_w")
                                  .Attr<int64_t>("top")
                                  .Attr<int64_t>("left")
                                  .Attr<bool>("transposed"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_depthwise_kernel_gradient,
                              DepthwiseKernelGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Images>()
                                  .Arg<Images>()
                                  .Ret<Images>()
                                  .Attr<int64_t>("stride_h")
                                  .Attr<int64_t>("stride_w")
                                  .Attr<int64_t>("top")
                                  .Attr<int64_t>("left"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_row_sums, RowSums,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Rows>()
                                  .Arg<Rows>()
                                  .Arg<Channels>()
                                  .Ret<Channels>()
                                  .Ret<Channels>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_convolution, Convolution,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Images>()
                                  .Arg<Images>()
                                  .Ret<Images>()
                                  .Attr<int64_t>("stride_h")
                                  .Attr<int64_t>("stride_w")
                                  .Attr<int64_t>("top")
                                  .Attr<int64_t>("left")
                                  .Attr<bool>("transposed"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_kernel_gradient, KernelGradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Images>()
                                  .Arg<Images>()
                                  .Ret<Images>()
                                  .Attr<int64_t>("stride_h")
                                  .Attr<int64_t>("stride_w")
                                  .Attr<int64_t>("top")
                                  .Attr<int64_t>("left"));
