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

# Bounds of the output: (0, inf) for ReLU, (-inf, inf) for no activation.
Clamp = tuple[float, float]
FeatureMaps = Float[Array, "... c"]
PerChannel = Float[Array, " c"]


def normalize(
  x: FeatureMaps,
  mean: PerChannel,
  factor: PerChannel,
  bias: PerChannel,
  residual: FeatureMaps | None,
  clamp: Clamp,
) -> FeatureMaps:
  """Returns clamp((x - mean) * factor + bias + residual), of x's dtype."""
  y = (x - _row(mean, x)) * _row(factor, x) + _row(bias, x)
  if residual is not None:
    y += residual
  low, high = clamp
  if low > -math.inf:
    y = jnp.maximum(y, low)
  if high < math.inf:
    y = jnp.minimum(y, high)
  return y.astype(x.dtype)


def norm_sums(
  gradient: FeatureMaps,
  output: FeatureMaps,
  x: FeatureMaps,
  mean: PerChannel,
  clamp: Clamp,
  *,
  keep: bool = False,
) -> tuple[PerChannel, PerChannel, FeatureMaps]:
  """Returns the sums of g and of g * (x - mean) over all axes but the last.

  Args:
    gradient: gradient of the output of `normalize`.
    output: the output of `normalize`; g is `gradient` where it lies strictly
      between the bounds, else 0.
    x: the input of `normalize`.
    mean: subtracted from x.
    clamp: the bounds given to `normalize`.
    keep: whether to return g.

  Returns:
    Both sums, per channel; then g if `keep`, else `gradient` unchanged.
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
  gradient: FeatureMaps,
  output: FeatureMaps,
  x: FeatureMaps,
  mean: PerChannel,
  factor: PerChannel,
  shift: PerChannel,
  slope: PerChannel,
  clamp: Clamp,
) -> FeatureMaps:
  """Returns g * factor + shift + slope * (x - mean); g as in `norm_sums`."""
  g = _clamped(gradient, output, clamp)
  by_mean = _row(shift, x) + _row(slope, x) * (x - _row(mean, x))
  return (g * _row(factor, x) + by_mean).astype(x.dtype)


def _row(per_channel: PerChannel, maps: FeatureMaps) -> Array:
  """Returns values per channel with as many dimensions as feature maps."""
  return per_channel.reshape((1,) * (maps.ndim - 1) + (-1,))


def _clamped(
  gradient: FeatureMaps, output: FeatureMaps, clamp: Clamp
) -> FeatureMaps:
  low, high = clamp
  inside = None
  if low > -math.inf:
    inside = output > low
  if high < math.inf:
    below = output < high
    inside = below if inside is None else inside & below
  return gradient if inside is None else jnp.where(inside, gradient, 0)
