// The pixels that the taps of a convolution kernel read.

#ifndef FER_JAX_GEOMETRY_H_
#define FER_JAX_GEOMETRY_H_

#include <cstdint>
#include <vector>

namespace fer_jax {

// Returns, for every output position and kernel tap along one axis, the index
// in the source that the tap reads: [result][taps], -1 in the padding.
inline std::vector<int> SourceIndices(int64_t result, int64_t source,
                                      int64_t taps, int64_t stride, int64_t pad,
                                      bool transposed) {
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

// Returns, for every output position and kernel tap, the source pixel that the
// tap reads: [positions][taps], -1 in the padding.
inline std::vector<int> SourcePixels(const std::vector<int>& rows,
                                     const std::vector<int>& columns,
                                     int64_t source_w, int64_t kernel_h,
                                     int64_t kernel_w) {
  std::vector<int> at;
  at.reserve(rows.size() * columns.size());
  for (size_t h = 0; h < rows.size(); h += kernel_h)
    for (size_t w = 0; w < columns.size(); w += kernel_w)
      for (int64_t i = 0; i < kernel_h; ++i)
        for (int64_t j = 0; j < kernel_w; ++j) {
          const int row = rows[h + i], column = columns[w + j];
          const bool inside = row >= 0 && column >= 0;
          at.push_back(inside ? static_cast<int>(row * source_w + column) : -1);
        }
  return at;
}

}  // namespace fer_jax

#endif  // FER_JAX_GEOMETRY_H_
