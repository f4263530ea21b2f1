// Sums over rows, of which batch normalisation is made.

#ifndef FER_JAX_ROW_SUMS_H_
#define FER_JAX_ROW_SUMS_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel.h"

namespace fer_jax {

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
    for (int v = 0; v < kVectors; ++v)
      total[v] += one[v], products[v] += two[v];
  }
  for (int v = 0; v < kVectors; ++v) {
    Store(first + v * kLanes, total[v]);
    Store(second + v * kLanes, products[v]);
  }
}

using Rows = ffi::Buffer<ffi::F32, 2>;
using Channels = ffi::Buffer<ffi::F32, 1>;

// Sums over rows: of a, and of a * (b - shift).
inline ffi::Error RowSums(ffi::ThreadPool pool, Rows a, Rows b, Channels shift,
                          ffi::Result<Channels> first,
                          ffi::Result<Channels> second) {
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

}  // namespace fer_jax

#endif  // FER_JAX_ROW_SUMS_H_
