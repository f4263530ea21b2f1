// What XLA's CPU back end is slow at: convolutions, depthwise convolutions and
// normalisation. Float32, NHWC; kernels.py compiles and calls them.
//
// Every kernel cuts its work into blocks whose number depends on shapes alone,
// and adds partial sums in their order: results do not depend on the threads.

#include "convolution.h"
#include "depthwise.h"
#include "kernel_gradient.h"
#include "norm.h"
#include "stem.h"

namespace ffi = xla::ffi;
using namespace fer_jax;

// Two arrays of images, or one and a kernel, to a third; where the window goes.
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

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_depthwise, Depthwise,
                              Windowed().Attr<bool>("transposed"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_depthwise_kernel_gradient,
                              DepthwiseKernelGradient, Windowed());

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_convolution, Convolution,
                              Windowed().Attr<bool>("transposed"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_kernel_gradient, KernelGradient,
                              Windowed());

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_stem, Stem, Windowed());

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_stem_kernel_gradient, StemKernelGradient,
                              Windowed());

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_normalize, Normalize,
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

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_norm_sums, NormSums,
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

XLA_FFI_DEFINE_HANDLER_SYMBOL(fer_jax_norm_gradient, NormGradient,
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
