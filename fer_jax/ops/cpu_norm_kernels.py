"""Batch normalization by the C++ CPU kernels: one call per pass over the data.

`cpu_library` compiles the kernels. `fer_jax.ops.batch_norm` combines these
passes and defines their gradients.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

# Bounds of the output: (0, inf) for ReLU, (-inf, inf) for no activation.
Clamp = tuple[float, float]
FeatureMaps = Float32[Array, "... c"]
PerChannel = Float32[Array, " c"]


def normalize(
  x: FeatureMaps,
  mean: PerChannel,
  factor: PerChannel,
  bias: PerChannel,
  residual: FeatureMaps | None,
  clamp: Clamp,
) -> FeatureMaps:
  """Returns clamp((x - mean) * factor + bias + residual), in one pass."""
  args = [_flatten(x), mean, factor, bias]
  if residual is not None:
    args.append(_flatten(residual))
  (y,) = _call("fer_jax_normalize", [args[0].shape], clamp, *args)
  return y.reshape(x.shape)


def moments(x: FeatureMaps) -> tuple[PerChannel, PerChannel]:
  """Returns the sums of x and of x * x over all axes but the last."""
  zeros = jnp.zeros(x.shape[-1:], x.dtype)
  unbounded = (-math.inf, math.inf)
  return norm_sums(x, x, x, zeros, unbounded)[:2]


def norm_sums(
  gradient: FeatureMaps,
  output: FeatureMaps,
  x: FeatureMaps,
  mean: PerChannel,
  clamp: Clamp,
  *,
  keep: bool = False,
) -> tuple[PerChannel, PerChannel, FeatureMaps]:
  """Returns the sums that the gradients of `normalize` consist of.

  Below, g is the gradient before the clamp: `gradient` where `output` lies
  strictly between the bounds, 0 elsewhere.

  Args:
    gradient: gradient of the output of `normalize`.
    output: the output of `normalize`.
    x: the input of `normalize`.
    mean: subtracted from x.
    clamp: the bounds given to `normalize`.
    keep: whether to return g.

  Returns:
    The sum of g and the sum of g * (x - mean), over all axes but the last;
    then g if `keep`, else `gradient` unchanged.
  """
  args = [_flatten(array) for array in (gradient, output, x)]
  shapes = [mean.shape, mean.shape] + [args[0].shape] * keep
  # g overwrites the gradient.
  aliases = {0: 2} if keep else None
  total, products, *g = _call(
    "fer_jax_norm_sums", shapes, clamp, *args, mean, aliases=aliases
  )
  return total, products, g[0].reshape(x.shape) if keep else gradient


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
  args = [_flatten(array) for array in (gradient, output, x)]
  per_channel = (mean, factor, shift, slope)
  (x_gradient,) = _call(
    "fer_jax_norm_gradient", [args[2].shape], clamp, *args, *per_channel
  )
  return x_gradient.reshape(x.shape)


def _flatten(x: Array) -> Array:
  return x.reshape(-1, x.shape[-1])


def _call(
  target: str,
  shapes: list[tuple[int, ...]],
  clamp: Clamp,
  *args: Array,
  aliases: dict[int, int] | None = None,
) -> list[Array]:
  low, high = map(np.float32, clamp)
  results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  call = jax.ffi.ffi_call(
    target, results, vmap_method="sequential", input_output_aliases=aliases
  )
  return list(call(*args, low=low, high=high))
