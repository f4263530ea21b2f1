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

# XLA sums up to so many positions (batch x height x width) in one kernel, and
# more in two.
ONE_KERNEL = 4096
# The parts into which `moments` splits a batch that is summed in one kernel,
# which would otherwise have only one block of threads per 32 channels.
_MAX_PARTS = 16


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


def moments(x: FeatureMaps) -> tuple[PerChannel, PerChannel]:
  """Returns the sums of x and of x * x over all axes but the last."""
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  parts = _num_parts(x)
  if parts == 1:
    return _sums((x, x * x))
  x = x.reshape(parts, -1, *x.shape[1:])
  total, squares = _sums((x, x * x), first=1)
  # Short enough for XLA to compute in the kernel that uses it.
  return total.sum(0), squares.sum(0)


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
  products = g * (x - _row(mean, x))
  total, products = _sums((g.astype(mean.dtype), products))
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


def _num_parts(x: FeatureMaps) -> int:
  """Returns the number of equal parts of a batch to sum separately."""
  if x.size // x.shape[-1] > ONE_KERNEL:
    return 1
  return max(n for n in range(1, _MAX_PARTS + 1) if x.shape[0] % n == 0)


def _sums(pair: tuple[Array, Array], first: int = 0) -> tuple[Array, Array]:
  """Sums both over the axes from `first` to the last but one, in one pass."""
  zero = jnp.zeros((), pair[0].dtype)
  return tuple(
    lax.reduce(
      pair,
      (zero, zero),
      lambda a, b: (a[0] + b[0], a[1] + b[1]),
      tuple(range(first, pair[0].ndim - 1)),
    )
  )


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
