"""A depthwise convolution for small maps on GPUs: shifted multiply-adds.

cuDNN's grouped convolutions want their own layouts of maps and kernels, and
XLA transposes into them and back. As multiply-adds the convolution is one
elementwise kernel, and so is the input's gradient; the kernel's gradient is one
variadic reduction over all taps.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fer_jax.ops import lowerings
from fer_jax.ops.lowerings import Pads, Strides


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw 1 c"],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow c"]:
  """Returns `lowerings.depthwise`, accumulated in float32 at least."""
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  y = lowerings.depthwise(x.astype(dtype), kernel.astype(dtype), strides, pads)
  return y.astype(x.dtype)


def _forward(
  x: Array, kernel: Array, strides: Strides, pads: Pads
) -> tuple[Array, tuple[Array, Array]]:
  return depthwise(x, kernel, strides, pads), (x, kernel)


def _backward(
  strides: Strides, pads: Pads, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
  x, kernel = saved
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  gradient, wide = gradient.astype(dtype), x.astype(dtype)
  _, to_input = jax.vjp(
    lambda x: lowerings.depthwise(x, kernel.astype(dtype), strides, pads), wide
  )
  size = (kernel.shape[0], kernel.shape[1])
  products = tuple(
    window * gradient
    for window in lowerings.windows(wide, size, strides, pads, 0.0)
  )
  taps = lax.reduce(
    products,
    (jnp.zeros((), dtype),) * len(products),
    lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True)),
    (0, 1, 2),
  )
  to_kernel = jnp.stack(taps).reshape(kernel.shape)
  (input_gradient,) = to_input(gradient)
  return input_gradient.astype(x.dtype), to_kernel.astype(kernel.dtype)


depthwise.defvjp(_forward, _backward)
