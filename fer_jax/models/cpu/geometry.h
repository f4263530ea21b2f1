// Which pixels a convolution's kernel meets.

#ifndef FER_JAX_GEOMETRY_H_
#define FER_JAX_GEOMETRY_H_

#include <cstdint>
#include <vector>

namespace fer_jax {

// Where each tap of a kernel meets the source, for every place of the result
// along one axis: -1 where it does not.
inline std::vector<int> Meetings(int64_t result, int64_t source, int64_t taps,
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

// What a place of the result is made of: pixels of the source, and taps.
struct Meeting {
  int64_t pixel;
  int64_t tap;
};

inline std::vector<std::vector<Meeting>> AllMeetings(
    const std::vector<int>& rows, const std::vector<int>& columns,
    int64_t result_h, int64_t result_w, int64_t source_w, int64_t kernel_h,
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

}  // namespace fer_jax

#endif  // FER_JAX_GEOMETRY_H_
