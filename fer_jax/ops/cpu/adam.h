// Adam's update of all parameters, in one pass over memory instead of three.

#ifndef FER_JAX_ADAM_H_
#define FER_JAX_ADAM_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "norm.h"
#include "parallel.h"

namespace fer_jax {

inline float SquareRoot(float x) { return std::sqrt(x); }
inline Vector SquareRoot(Vector x) {
  for (int i = 0; i < kLanes; ++i) x[i] = std::sqrt(x[i]);
  return x;
}

// The arrays of one parameter; `new_*` may be the same memory.
struct AdamArrays {
  const float *param, *first, *second, *gradient;
  float *new_param, *new_first, *new_second;
  float l2_decay, decoupled_decay;
};

// Numbers of an update: of the moments, `b1` and `b2` of the old ones stay, and
// `new1` and `new2` of the new ones are added; `rate` is the learning rate; the
// moments are multiplied by `scale1` and `scale2`, which correct that they
// start at 0.
struct AdamNumbers {
  float b1, b2, new1, new2, epsilon, rate, scale1, scale2;
};

template <typename T>
void UpdateAdam(const AdamArrays& a, const AdamNumbers& n, int64_t i) {
  T param = Read<T>(a.param + i);
  const T gradient = Read<T>(a.gradient + i) + a.l2_decay * param;
  const T first = n.b1 * Read<T>(a.first + i) + n.new1 * gradient;
  const T second =
      n.b2 * Read<T>(a.second + i) + n.new2 * (gradient * gradient);
  const T step = n.scale1 * first / (SquareRoot(n.scale2 * second) + n.epsilon);
  param -= n.rate * (step + a.decoupled_decay * param);
  Write<T>(a.new_first + i, first);
  Write<T>(a.new_second + i, second);
  Write<T>(a.new_param + i, param);
}

// Updates the parameters in `arrays`: all parameters, then all first and all
// second moments, then all gradients; the results are the first three.
// `numbers` holds the learning rate, the weight decay, scale1 and scale2.
// `decayed` is 1 for the parameters that weight decay acts on.
inline ffi::Error Adam(ffi::ThreadPool pool, Channels numbers,
                       ffi::RemainingArgs arrays, ffi::RemainingRets results,
                       ffi::Span<const int64_t> decayed, double b1, double b2,
                       double epsilon, bool decoupled) {
  constexpr int64_t kPiece = 16384;  // elements per block of work
  const float* given = numbers.typed_data();
  // 1 - b2 of a rounded b2 would be inexact.
  const AdamNumbers n{float(b1),      float(b2), float(1 - b1), float(1 - b2),
                      float(epsilon), given[0],  given[2],      given[3]};
  const size_t count = decayed.size();
  const auto in = [&](size_t i) {
    return arrays.get<ffi::AnyBuffer>(i)->typed_data<float>();
  };
  const auto out = [&](size_t i) {
    return (*results.get<ffi::AnyBuffer>(i))->typed_data<float>();
  };
  struct Piece {
    size_t array;
    int64_t start, end;
  };
  std::vector<AdamArrays> all;
  std::vector<Piece> pieces;
  for (size_t i = 0; i < count; ++i) {
    const float decay = decayed[i] ? given[1] : 0.0f;
    all.push_back({in(i), in(count + i), in(2 * count + i), in(3 * count + i),
                   out(i), out(count + i), out(2 * count + i),
                   decoupled ? 0.0f : decay, decoupled ? decay : 0.0f});
    const int64_t size = arrays.get<ffi::AnyBuffer>(i)->element_count();
    for (int64_t start = 0; start < size; start += kPiece)
      pieces.push_back({i, start, std::min(size, start + kPiece)});
  }
  ParallelFor(pool, pieces.size(), [&](int64_t block) {
    const Piece& piece = pieces[block];
    ForChannels(piece.end, piece.start, [&](auto kind, int64_t i) {
      UpdateAdam<decltype(kind)>(all[piece.array], n, i);
    });
  });
  return ffi::Error::Success();
}

}  // namespace fer_jax

#endif  // FER_JAX_ADAM_H_
