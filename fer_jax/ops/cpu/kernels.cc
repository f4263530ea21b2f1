// CPU kernels for convolutions, depthwise convolutions, batch normalization and
// Adam, for which XLA's CPU backend is slow. Arrays are float32, NHWC.
// cpu_library.py compiles them; cpu_kernels.py, cpu_norm_kernels.py and
// cpu_adam.py call them.
//
// Each kernel divides its work into blocks whose number depends on shapes only,
// and adds partial sums in a fixed order: results do not depend on the threads.

#include "adam.h"
#include "bfloat16.h"
#include "convolution.h"
#include "depthwise.h"
#include "handler.h"
#include "kernel_gradient.h"
#include "norm.h"
#include "stem.h"

namespace ffi = xla::ffi;
using namespace fer_jax;

// Binds kernels with two 4-D arguments, one 4-D result and a sliding window.
inline auto Windowed() {
  return ffi::Ffi::Bind()
      .Ctx<ffi::ThreadPool>()
      .Arg<Images>()
      .Arg<Images>()
      .Ret<Images>()
      .Attr<int64_t>("stride_h")
      .Attr<int64_t>("stride_w")
      .Attr<int64_t>("top")
      .Attr<int64_t>("left");
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_depthwise, Guarded(Depthwise),
                              Windowed().Attr<bool>("transposed"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_depthwise_kernel_gradient,
                              Guarded(DepthwiseKernelGradient), Windowed());

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_convolution, Guarded(Convolution),
                              Windowed().Attr<bool>("transposed"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_kernel_gradient, Guarded(KernelGradient),
                              Windowed());

// Returns whether the two kernels below exist, and lets this process use them.
extern "C" bool fer_jax_request_bfloat16() {
#ifdef FER_JAX_BFLOAT16
  return RequestTiles();
#else
  return false;
#endif
}

#ifdef FER_JAX_BFLOAT16
XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_bfloat16_convolution,
                              Guarded(Bfloat16Convolution),
                              Windowed().Attr<bool>("transposed"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_bfloat16_kernel_gradient,
                              Guarded(Bfloat16KernelGradient), Windowed());
#endif

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_stem, Guarded(Stem), Windowed());

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_stem_kernel_gradient,
                              Guarded(StemKernelGradient), Windowed());

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_normalize, Guarded(Normalize),
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Rows>()
                                  .Arg<Channels>()
                                  .Arg<Channels>()
                                  .Arg<Channels>()
                                  .RemainingArgs()
                                  .Ret<Rows>()
                                  .Attr<float>("low")
                                  .Attr<float>("high"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_norm_sums, Guarded(NormSums),
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Rows>()
                                  .Arg<Rows>()
                                  .Arg<Rows>()
                                  .Arg<Channels>()
                                  .Ret<Channels>()
                                  .Ret<Channels>()
                                  .RemainingRets()
                                  .Attr<float>("low")
                                  .Attr<float>("high"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_norm_gradient, Guarded(NormGradient),
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Rows>()
                                  .Arg<Rows>()
                                  .Arg<Rows>()
                                  .Arg<Channels>()
                                  .Arg<Channels>()
                                  .Arg<Channels>()
                                  .Arg<Channels>()
                                  .Ret<Rows>()
                                  .Attr<float>("low")
                                  .Attr<float>("high"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_adam, Guarded(Adam),
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Channels>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<ffi::Span<const int64_t>>("decayed")
                                  .Attr<double>("b1")
                                  .Attr<double>("b2")
                                  .Attr<double>("epsilon")
                                  .Attr<bool>("decoupled"));
