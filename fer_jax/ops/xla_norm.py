"""Batch normalization's three passes for accelerators, as XLA operations.

The functions of `cpu_norm_kernels` in `jax.numpy`, with the same arguments and
results, for every floating-point type. Both sums of a pass are one variadic
reduction, which XLA compiles to one kernel (two where a tree of sums is
faster), where the gradient that autodiff derives needs two or three. Statistics
and sums are at least float32, whatever the type of the feature maps.
"""

import math

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Clamp = tuple[float, float]  # below and above which nothing comes through
Maps = Float[Array, "... c"]  # feature maps, of any rank
Channels = Float[Array, " c"]


def normalize(
  x: Maps,
  mean: Channels,
  factor: Channels,
  bias: Channels,
  shortcut: Maps | None,
  clamp: Clamp,
) -> Maps:
  """Returns clamp((x - mean) * factor + bias + shortcut), of x's dtype."""
  y = (x - _row(mean, x)) * _row(factor, x) + _row(bias, x)
  if shortcut is not None:
    y += shortcut
  low, high = clamp
  if low > -math.inf:
    y = jnp.maximum(y, low)
  if high < math.inf:
    y = jnp.minimum(y, high)
  return y.astype(x.dtype)


def norm_sums(
  gradient: Maps,
  output: Maps,
  x: Maps,
  mean: Channels,
  clamp: Clamp,
  *,
  keep: bool = False,
) -> tuple[Channels, Channels, Maps]:
  """Returns the sums of g and of g * (x - mean) over all axes but the last.

  Args:
    gradient: of the output.
    output: of `normalize`; g is the gradient where the clamp let it through.
    x: the input.
    mean: by channel.
    clamp: as in `normalize`.
    keep: whether g is wanted.

  Returns:
    Both sums, by channel, and g, or the gradient unchanged.
  """
  g = _clamped(gradient, output, clamp)
  dtype = mean.dtype
  zero = jnp.zeros((), dtype)
  total, products = lax.reduce(
    (g.astype(dtype), g * (x - _row(mean, x))),
    (zero, zero),
    lambda a, b: (a[0] + b[0], a[1] + b[1]),
    tuple(range(x.ndim - 1)),
  )
  return total, products, g if keep else gradient


def norm_gradient(
  gradient: Maps,
  output: Maps,
  x: Maps,
  mean: Channels,
  factor: Channels,
  shift: Channels,
  slope: Channels,
  clamp: Clamp,
) -> Maps:
  """Returns g * factor + shift + slope * (x - mean); g as in `norm_sums`."""
  g = _clamped(gradient, output, clamp)
  by_mean = _row(shift, x) + _row(slope, x) * (x - _row(mean, x))
  return (g * _row(factor, x) + by_mean).astype(x.dtype)


def _row(by_channel: Channels, maps: Maps) -> Array:
  """Values by channel, with as many dimensions as feature maps."""
  return by_channel.reshape((1,) * (maps.ndim - 1) + (-1,))


def _clamped(gradient: Maps, output: Maps, clamp: Clamp) -> Maps:
  low, high = clamp
  inside = None
  if low > -math.inf:
    inside = output > low
  if high < math.inf:
    below = output < high
    inside = below if inside is None else inside & below
  return gradient if inside is None else jnp.where(inside, gradient, 0)
