// Kernels that report failed allocations as errors of XLA.

#ifndef FER_JAX_HANDLER_H_
#define FER_JAX_HANDLER_H_

#include <new>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace fer_jax {

namespace ffi = xla::ffi;

// Returns a kernel that ends in RESOURCE_EXHAUSTED where memory is lacking.
template <typename... Args>
auto Guarded(ffi::Error (*kernel)(Args...)) {
  return [kernel](Args... args) -> ffi::Error {
    try {
      return kernel(std::move(args)...);
    } catch (const std::bad_alloc&) {
      return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                        "Out of memory in a CPU kernel.");
    }
  };
}

}  // namespace fer_jax

#endif  // FER_JAX_HANDLER_H_
