// Normalisation by channel, with what is added behind it and the clamp (ReLU)
// behind that: one pass over the images where layer by layer it takes three.

#ifndef FER_JAX_NORM_H_
#define FER_JAX_NORM_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "parallel.h"

namespace fer_jax {

using Rows = ffi::Buffer<ffi::F32, 2>;
using Channels = ffi::Buffer<ffi::F32, 1>;

// Rows that are added in registers before they join the sums so far.
constexpr int64_t kRun = 32;
constexpr int64_t kPart = 32768;  // numbers that a block of work takes

// A Vector, or one float where fewer are left.
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

// Calls visit(T{}, c) with each channel c that a Vector, or a float, begins at.
template <typename Visit>
void ForChannels(int64_t channels, const Visit& visit) {
  int64_t c = 0;
  for (; c + kLanes <= channels; c += kLanes) visit(Vector{}, c);
  for (; c < channels; ++c) visit(float{}, c);
}

// Calls work(first row, rows) on parts of all rows.
template <typename Work>
void ForRows(ffi::ThreadPool& pool, int64_t num_rows, int64_t channels,
             const Work& work) {
  const int64_t blocks = std::max<int64_t>(num_rows * channels / kPart, 1);
  ParallelFor(pool, blocks, [&](int64_t block) {
    const int64_t start = block * num_rows / blocks;
    work(start, (block + 1) * num_rows / blocks - start);
  });
}

// The gradient in front of a clamp: what comes from where it does not clamp.
template <typename T>
T Unclamped(T gradient, T output, float low, float high) {
  return (output > low) & (output < high) ? gradient : T{};
}

// result = clamp((x - mean) * factor + bias + shortcut, low, high); `others`
// are the shortcut, or nothing.
inline ffi::Error Normalize(ffi::ThreadPool pool, Rows x, Channels mean,
                            Channels factor, Channels bias,
                            ffi::RemainingArgs others, ffi::Result<Rows> result,
                            float low, float high) {
  const int64_t num_rows = x.dimensions()[0], channels = x.dimensions()[1];
  const float* shortcut =
      others.size() ? others.get<Rows>(0)->typed_data() : nullptr;
  const float* center = mean.typed_data();
  const float* scale = factor.typed_data();
  const float* shift = bias.typed_data();
  ForRows(pool, num_rows, channels, [&](int64_t start, int64_t count) {
    for (int64_t row = start; row < start + count; ++row) {
      const float* from = x.typed_data() + row * channels;
      const float* add = shortcut ? shortcut + row * channels : nullptr;
      float* to = result->typed_data() + row * channels;
      ForChannels(channels, [&](auto kind, int64_t c) {
        using T = decltype(kind);
        T y = (Read<T>(from + c) - Read<T>(center + c)) * Read<T>(scale + c) +
              Read<T>(shift + c);
        if (add) y += Read<T>(add + c);
        const T lowest = T{} + low, highest = T{} + high;
        y = y < lowest ? lowest : y;
        Write<T>(to + c, y > highest ? highest : y);
      });
    }
  });
  return ffi::Error::Success();
}

// first[c] = sum of g, second[c] = sum of g * (x - mean), over rows, where g is
// the gradient in front of the clamp; `kept` is g, or null.
template <typename T, int kCount>
void AddRows(const float* gradient, const float* output, const float* x,
             const float* mean, float low, float high, int64_t num_rows,
             int64_t channels, float* first, float* second, float* kept) {
  constexpr int64_t kWidth = sizeof(T) / sizeof(float);
  T total[kCount] = {}, products[kCount] = {}, center[kCount];
  for (int v = 0; v < kCount; ++v) center[v] = Read<T>(mean + v * kWidth);
  for (int64_t row = 0; row < num_rows;) {
    const int64_t end = std::min(num_rows, row + kRun);
    T one[kCount] = {}, two[kCount] = {};
    for (; row < end; ++row)
      for (int v = 0; v < kCount; ++v) {
        const int64_t at = row * channels + v * kWidth;
        const T g =
            Unclamped(Read<T>(gradient + at), Read<T>(output + at), low, high);
        if (kept) Write<T>(kept + at, g);
        one[v] += g;
        two[v] += g * (Read<T>(x + at) - center[v]);
      }
    for (int v = 0; v < kCount; ++v) total[v] += one[v], products[v] += two[v];
  }
  for (int v = 0; v < kCount; ++v) {
    Write<T>(first + v * kWidth, total[v]);
    Write<T>(second + v * kWidth, products[v]);
  }
}

// What the gradients of a normalisation are made of; see `AddRows`. `others`
// are g, or nothing.
inline ffi::Error NormSums(ffi::ThreadPool pool, Rows gradient, Rows output,
                           Rows x, Channels mean, ffi::Result<Channels> first,
                           ffi::Result<Channels> second,
                           ffi::RemainingRets others, float low, float high) {
  const int64_t num_rows = x.dimensions()[0], channels = x.dimensions()[1];
  float* kept = others.size() ? (*others.get<Rows>(0))->typed_data() : nullptr;
  const int64_t blocks =
      std::clamp<int64_t>(num_rows * channels / kPart, 1, 16);
  std::vector<float> partial(2 * blocks * channels);
  ParallelFor(pool, blocks, [&](int64_t block) {
    const int64_t start = block * num_rows / blocks;
    const int64_t count = (block + 1) * num_rows / blocks - start;
    float* one = partial.data() + 2 * block * channels;
    const auto add = [&](auto rows, int64_t c) {
      const int64_t at = start * channels + c;
      rows(gradient.typed_data() + at, output.typed_data() + at,
           x.typed_data() + at, mean.typed_data() + c, low, high, count,
           channels, one + c, one + channels + c, kept ? kept + at : nullptr);
    };
    int64_t c = 0;
    for (; c + 4 * kLanes <= channels; c += 4 * kLanes)
      add(AddRows<Vector, 4>, c);
    for (; c + kLanes <= channels; c += kLanes) add(AddRows<Vector, 1>, c);
    for (; c < channels; ++c) add(AddRows<float, 1>, c);
  });
  std::fill_n(first->typed_data(), channels, 0.0f);
  std::fill_n(second->typed_data(), channels, 0.0f);
  for (int64_t block = 0; block < blocks; ++block) {
    const float* from = partial.data() + 2 * block * channels;
    for (int64_t c = 0; c < channels; ++c) {
      first->typed_data()[c] += from[c];
      second->typed_data()[c] += from[channels + c];
    }
  }
  return ffi::Error::Success();
}

// result = g * factor + shift + slope * (x - mean): the gradient of a
// normalisation's input, where g is the gradient in front of the clamp.
inline ffi::Error NormGradient(ffi::ThreadPool pool, Rows gradient, Rows output,
                               Rows x, Channels mean, Channels factor,
                               Channels shift, Channels slope,
                               ffi::Result<Rows> result, float low,
                               float high) {
  const int64_t num_rows = x.dimensions()[0], channels = x.dimensions()[1];
  const float* center = mean.typed_data();
  const float* scale = factor.typed_data();
  const float* constant = shift.typed_data();
  const float* linear = slope.typed_data();
  ForRows(pool, num_rows, channels, [&](int64_t start, int64_t count) {
    for (int64_t row = start; row < start + count; ++row) {
      const float* of_result = gradient.typed_data() + row * channels;
      const float* out = output.typed_data() + row * channels;
      const float* from = x.typed_data() + row * channels;
      float* to = result->typed_data() + row * channels;
      ForChannels(channels, [&](auto kind, int64_t c) {
        using T = decltype(kind);
        const T g =
            Unclamped(Read<T>(of_result + c), Read<T>(out + c), low, high);
        Write<T>(to + c, g * Read<T>(scale + c) + Read<T>(constant + c) +
                             Read<T>(linear + c) *
                                 (Read<T>(from + c) - Read<T>(center + c)));
      });
    }
  });
  return ffi::Error::Success();
}

}  // namespace fer_jax

#endif  // FER_JAX_NORM_H_
