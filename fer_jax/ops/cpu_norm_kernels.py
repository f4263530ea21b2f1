"""The kernels of normalisation; see `kernels`, which compiles them."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from fer_jax.ops.cpu_kernels import NORM_GRADIENT, NORM_SUMS, NORMALIZE

Clamp = tuple[float, float]  # below and above which nothing comes through
Rows = Float32[Array, "... c"]  # feature maps, of any rank
Channels = Float32[Array, " c"]


def normalize(
  x: Rows,
  mean: Channels,
  factor: Channels,
  bias: Channels,
  shortcut: Rows | None,
  clamp: Clamp,
) -> Rows:
  """clamp((x - mean) * factor + bias + shortcut), in one pass."""
  rows = [_rows(x), mean, factor, bias]
  if shortcut is not None:
    rows.append(_rows(shortcut))
  (y,) = _normed(NORMALIZE, [rows[0].shape], clamp, *rows)
  return y.reshape(x.shape)


def norm_sums(
  gradient: Rows,
  output: Rows,
  x: Rows,
  mean: Channels,
  clamp: Clamp,
  *,
  keep: bool = False,
) -> tuple[Channels, Channels, Rows]:
  """What the gradients of `normalize` are made of, in one pass.

  Args:
    gradient: of the output.
    output: of `normalize`; what the clamp held back has no gradient, g is 0.
    x: the input.
    mean: as it was given.
    clamp: as it was given.
    keep: whether g is wanted.

  Returns:
    Sums over all axes but the last of g and of g * (x - mean), and g, or the
    gradient as it came.
  """
  one = mean.shape
  rows = [_rows(array) for array in (gradient, output, x)]
  results = [one, one] + [rows[0].shape] * keep
  # g takes the gradient's place.
  total, products, *g = _normed(
    NORM_SUMS, results, clamp, *rows, mean, aliases={0: 2} if keep else None
  )
  return total, products, g[0].reshape(x.shape) if keep else gradient


def norm_gradient(
  gradient: Rows,
  output: Rows,
  x: Rows,
  mean: Channels,
  factor: Channels,
  shift: Channels,
  slope: Channels,
  clamp: Clamp,
) -> Rows:
  """Returns g * factor + shift + slope * (x - mean); g as in `norm_sums`."""
  rows = [_rows(array) for array in (gradient, output, x)]
  (to_x,) = _normed(
    NORM_GRADIENT, [rows[2].shape], clamp, *rows, mean, factor, shift, slope
  )
  return to_x.reshape(x.shape)


def _rows(x: Array) -> Array:
  return x.reshape(-1, x.shape[-1])


def _normed(
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
