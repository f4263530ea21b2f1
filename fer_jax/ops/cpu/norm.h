// Batch normalization with residual addition and clamp (ReLU), in one pass over
// the feature maps instead of three.

#ifndef FER_JAX_NORM_H_
#define FER_JAX_NORM_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "parallel.h"

namespace fer_jax {

using Rows = ffi::Buffer<ffi::F32, 2>;
using Channels = ffi::Buffer<ffi::F32, 1>;

// Rows added in registers before the result is added to the sums in memory.
constexpr int64_t kRun = 32;
constexpr int64_t kBlockSize = 32768;  // floats per block of work

// Reads a Vector or a single float.
template <typename T>
T Read(const float* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}
template <typename T>
void Write(float* p, T value) {
  std::memcpy(p, &value, sizeof(T));
}

// Calls visit(Vector{}, c) for each full vector of channels from c on, and
// visit(float{}, c) for each remaining channel.
template <typename Visit>
void ForChannels(int64_t channels, int64_t c, const Visit& visit) {
  for (; c + kLanes <= channels; c += kLanes) visit(Vector{}, c);
  for (; c < channels; ++c) visit(float{}, c);
}

// Returns how many rows to treat as one, so that rows of few channels consist
// of full vectors.
inline int64_t RowsPerVectorRow(int64_t num_rows, int64_t channels) {
  if (channels >= 4 * kLanes) return 1;
  int64_t times = 1;
  while (channels * times % (4 * kLanes)) times *= 2;
  return num_rows % times ? 1 : times;
}

// Returns the values of all channels, repeated `times` times.
inline std::vector<float> Repeat(const Channels& values, int64_t times) {
  const int64_t count = values.dimensions()[0];
  std::vector<float> repeated(times * count);
  for (int64_t i = 0; i < times; ++i)
    std::copy_n(values.typed_data(), count, repeated.data() + i * count);
  return repeated;
}

// Calls work(first row, number of rows) on blocks of rows, in parallel.
template <typename Work>
void ForRows(ffi::ThreadPool& pool, int64_t num_rows, int64_t channels,
             const Work& work) {
  const int64_t blocks = std::max<int64_t>(num_rows * channels / kBlockSize, 1);
  ParallelFor(pool, blocks, [&](int64_t block) {
    const int64_t start = block * num_rows / blocks;
    work(start, (block + 1) * num_rows / blocks - start);
  });
}

// Returns the gradient before the clamp: 0 where the output was clamped.
template <typename T>
T BeforeClamp(T gradient, T output, float low, float high) {
  return (output > low) & (output < high) ? gradient : T{};
}

// result = clamp((x - mean) * factor + bias + residual, low, high); the residual
// is optional, in `others`.
inline ffi::Error Normalize(ffi::ThreadPool pool, Rows x, Channels mean,
                            Channels factor, Channels bias,
                            ffi::RemainingArgs others, ffi::Result<Rows> result,
                            float low, float high) {
  const int64_t times = RowsPerVectorRow(x.dimensions()[0], x.dimensions()[1]);
  const int64_t num_rows = x.dimensions()[0] / times;
  const int64_t channels = x.dimensions()[1] * times;
  const float* residual =
      others.size() ? others.get<Rows>(0)->typed_data() : nullptr;
  const std::vector<float> centers = Repeat(mean, times);
  const std::vector<float> scales = Repeat(factor, times);
  const std::vector<float> shifts = Repeat(bias, times);
  ForRows(pool, num_rows, channels, [&](int64_t start, int64_t count) {
    for (int64_t row = start; row < start + count; ++row) {
      const float* from = x.typed_data() + row * channels;
      const float* add = residual ? residual + row * channels : nullptr;
      float* to = result->typed_data() + row * channels;
      ForChannels(channels, 0, [&](auto kind, int64_t c) {
        using T = decltype(kind);
        const T center = Read<T>(&centers[c]), scale = Read<T>(&scales[c]);
        T y = (Read<T>(from + c) - center) * scale + Read<T>(&shifts[c]);
        if (add) y += Read<T>(add + c);
        const T lowest = T{} + low, highest = T{} + high;
        y = y < lowest ? lowest : y;
        Write<T>(to + c, y > highest ? highest : y);
      });
    }
  });
  return ffi::Error::Success();
}

// first[c] += sum of g, second[c] += sum of g * (x - mean), over some rows, where
// g is the gradient before the clamp, which is written to `kept` unless null.
// If not kClamped, there was no clamp and `output` is not read.
template <bool kClamped, typename T, int kCount>
void AddRows(const float* gradient, const float* output, const float* x,
             const float* mean, float low, float high, int64_t num_rows,
             int64_t channels, float* first, float* second, float* kept) {
  constexpr int64_t kWidth = sizeof(T) / sizeof(float);
  T one[kCount] = {}, two[kCount] = {}, center[kCount];
  for (int v = 0; v < kCount; ++v) center[v] = Read<T>(mean + v * kWidth);
  for (int64_t row = 0; row < num_rows; ++row)
    for (int v = 0; v < kCount; ++v) {
      const int64_t at = row * channels + v * kWidth;
      T g = Read<T>(gradient + at);
      if (kClamped) g = BeforeClamp(g, Read<T>(output + at), low, high);
      if (kept) Write<T>(kept + at, g);
      one[v] += g;
      two[v] += g * (Read<T>(x + at) - center[v]);
    }
  for (int v = 0; v < kCount; ++v) {
    const int64_t c = v * kWidth;
    Write<T>(first + c, Read<T>(first + c) + one[v]);
    Write<T>(second + c, Read<T>(second + c) + two[v]);
  }
}

// Computes the sums that the gradients of the normalization consist of; see
// `AddRows`. Writes g to the optional result in `others`.
inline ffi::Error NormSums(ffi::ThreadPool pool, Rows gradient, Rows output,
                           Rows x, Channels mean, ffi::Result<Channels> first,
                           ffi::Result<Channels> second,
                           ffi::RemainingRets others, float low, float high) {
  const int64_t times = RowsPerVectorRow(x.dimensions()[0], x.dimensions()[1]);
  const int64_t num_rows = x.dimensions()[0] / times;
  const int64_t channels = x.dimensions()[1] * times;
  const std::vector<float> centers = Repeat(mean, times);
  float* kept = others.size() ? (*others.get<Rows>(0))->typed_data() : nullptr;
  const int64_t blocks =
      std::clamp<int64_t>(num_rows * channels / kBlockSize, 1, 16);
  std::vector<float> partial(2 * blocks * channels);
  const bool clamped = std::isfinite(low) || std::isfinite(high);
  ParallelFor(pool, blocks, [&](int64_t block) {
    const int64_t end = (block + 1) * num_rows / blocks;
    float* one = partial.data() + 2 * block * channels;
    int64_t row = block * num_rows / blocks, count;
    const auto add = [&](auto unclamped, auto clamped_add, int64_t c) {
      const int64_t at = row * channels + c;
      (clamped ? clamped_add : unclamped)(
          gradient.typed_data() + at, output.typed_data() + at,
          x.typed_data() + at, &centers[c], low, high, count, channels, one + c,
          one + channels + c, kept ? kept + at : nullptr);
    };
    for (; row < end; row += count) {
      count = std::min(end - row, kRun);
      int64_t c = 0;
      for (; c + 4 * kLanes <= channels; c += 4 * kLanes)
        add(AddRows<false, Vector, 4>, AddRows<true, Vector, 4>, c);
      ForChannels(channels, c, [&](auto kind, int64_t c) {
        using T = decltype(kind);
        add(AddRows<false, T, 1>, AddRows<true, T, 1>, c);
      });
    }
  });
  const int64_t count = x.dimensions()[1];
  std::fill_n(first->typed_data(), count, 0.0f);
  std::fill_n(second->typed_data(), count, 0.0f);
  for (int64_t i = 0; i < blocks * times; ++i) {
    const float* from = partial.data() + (i + i / times * times) * count;
    for (int64_t c = 0; c < count; ++c) {
      first->typed_data()[c] += from[c];
      second->typed_data()[c] += from[channels + c];
    }
  }
  return ffi::Error::Success();
}

// result = g * factor + shift + slope * (x - mean): the gradient of the input
// of the normalization, where g is the gradient before the clamp.
inline ffi::Error NormGradient(ffi::ThreadPool pool, Rows gradient, Rows output,
                               Rows x, Channels mean, Channels factor,
                               Channels shift, Channels slope,
                               ffi::Result<Rows> result, float low,
                               float high) {
  const int64_t times = RowsPerVectorRow(x.dimensions()[0], x.dimensions()[1]);
  const int64_t num_rows = x.dimensions()[0] / times;
  const int64_t channels = x.dimensions()[1] * times;
  const std::vector<float> centers = Repeat(mean, times);
  const std::vector<float> scales = Repeat(factor, times);
  const std::vector<float> shifts = Repeat(shift, times);
  const std::vector<float> slopes = Repeat(slope, times);
  ForRows(pool, num_rows, channels, [&](int64_t start, int64_t count) {
    for (int64_t row = start; row < start + count; ++row) {
      const float* grad = gradient.typed_data() + row * channels;
      const float* out = output.typed_data() + row * channels;
      const float* from = x.typed_data() + row * channels;
      float* to = result->typed_data() + row * channels;
      ForChannels(channels, 0, [&](auto kind, int64_t c) {
        using T = decltype(kind);
        const T g = BeforeClamp(Read<T>(grad + c), Read<T>(out + c), low, high);
        const T off = Read<T>(from + c) - Read<T>(&centers[c]);
        Write<T>(to + c, g * Read<T>(&scales[c]) + Read<T>(&shifts[c]) +
                             Read<T>(&slopes[c]) * off);
      });
    }
  });
  return ffi::Error::Success();
}

}  // namespace fer_jax

#endif  // FER_JAX_NORM_H_
