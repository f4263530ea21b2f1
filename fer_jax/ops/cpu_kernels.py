"""Convolutions by the C++ CPU kernels, with their gradients.

XLA's CPU backend takes tens of times longer than necessary for the kernel
gradient of a depthwise convolution, and several times longer for other
convolutions. Each function here falls back to XLA's operations where the
kernels are not available (see `cpu_library`) or do not support the shape.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from fer_jax.ops import cpu_library, lowerings
from fer_jax.ops.lowerings import Pads, Strides, output_size

# The kernels take numbers of channels that are multiples of this.
CHANNEL_MULTIPLE = 32
# With at most this many output positions (of all images together), the kernels
# read the weights only once. kTileRows in cpu/convolution.h.
FEW_POSITIONS = 12
# The bfloat16 kernels take this many images at a time.
BFLOAT16_IMAGES = 32


def depthwise(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw 1 c"],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow c"]:
  """Computes a depthwise convolution."""
  if cpu_library.supports(x, kernel):
    return _convolve(_DEPTHWISE, strides, pads, x, kernel)
  return lowerings.depthwise(x, kernel, strides, pads)


def convolution(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw c k"],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow k"]:
  """Computes a convolution whose channels are multiples of 32."""
  multiples = all(n % CHANNEL_MULTIPLE == 0 for n in kernel.shape[2:])
  if multiples and cpu_library.supports(x, kernel):
    return _convolve(_CONVOLUTION, strides, pads, x, kernel)
  return lowerings.shift_and_add(x, kernel, strides, pads)


def bfloat16_convolution(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw c k"],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow k"]:
  """Computes `convolution` with products in bfloat16, and sums in float32."""
  if cpu_library.multiplies_bfloat16() and cpu_library.supports(x, kernel):
    return _convolve(_BFLOAT16_CONVOLUTION, strides, pads, x, kernel)
  return convolution(x, kernel, strides, pads)


def stem(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw c k"],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow k"]:
  """Computes a convolution of images that have few channels."""
  if kernel.shape[3] % CHANNEL_MULTIPLE == 0 and cpu_library.supports(
    x, kernel
  ):
    return _convolve(_STEM, strides, pads, x, kernel)
  return lowerings.xla(x, kernel, strides, pads)


class _Targets(NamedTuple):
  """FFI targets of one kind of convolution.

  Attributes:
    convolution: the convolution and, if `transposes`, the input's gradient.
    kernel_gradient: the gradient of the kernel.
    transposes: whether `convolution` has the attribute "transposed".
  """

  convolution: str
  kernel_gradient: str
  transposes: bool = True


_DEPTHWISE = _Targets("fer_jax_depthwise", "fer_jax_depthwise_kernel_gradient")
_CONVOLUTION = _Targets("fer_jax_convolution", "fer_jax_kernel_gradient")
_BFLOAT16_CONVOLUTION = _Targets(
  "fer_jax_bfloat16_convolution", "fer_jax_bfloat16_kernel_gradient"
)
_STEM = _Targets(
  "fer_jax_stem", "fer_jax_stem_kernel_gradient", transposes=False
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _convolve(
  targets: _Targets, strides: Strides, pads: Pads, x: Array, kernel: Array
) -> Array:
  height, width = output_size(x.shape, kernel.shape, strides, pads)
  shape = (x.shape[0], height, width, kernel.shape[3])
  attributes: dict[str, Any] = _geometry(strides, pads)
  if targets.transposes:
    attributes["transposed"] = False
  return _call(targets.convolution, shape, x, kernel, **attributes)


def _convolve_forward(
  targets: _Targets, strides: Strides, pads: Pads, x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
  return _convolve(targets, strides, pads, x, kernel), (x, kernel)


def _convolve_backward(
  targets: _Targets,
  strides: Strides,
  pads: Pads,
  residuals: tuple[Array, Array],
  gradient: Array,
) -> tuple[Array, Array]:
  x, kernel = residuals
  attributes = _geometry(strides, pads)
  if targets.transposes:
    x_gradient = _call(
      targets.convolution,
      x.shape,
      gradient,
      kernel,
      transposed=True,
      **attributes,
    )
  else:  # The gradient of the images, which training does not need.
    _, vjp = jax.vjp(
      lambda x: lowerings.space_to_depth(x, kernel, strides, pads), x
    )
    (x_gradient,) = vjp(gradient)
  kernel_gradient = _call(
    targets.kernel_gradient, kernel.shape, x, gradient, **attributes
  )
  return x_gradient, kernel_gradient


_convolve.defvjp(_convolve_forward, _convolve_backward)


def _call(
  target: str, shape: tuple[int, ...], *args: Array, **attributes: Any
) -> Any:
  result = jax.ShapeDtypeStruct(shape, jnp.float32)
  call = jax.ffi.ffi_call(target, result, vmap_method="sequential")
  return call(*args, **attributes)


def _geometry(strides: Strides, pads: Pads) -> dict[str, np.int64]:
  return {
    "stride_h": np.int64(strides[0]),
    "stride_w": np.int64(strides[1]),
    "top": np.int64(pads[0][0]),
    "left": np.int64(pads[1][0]),
  }
