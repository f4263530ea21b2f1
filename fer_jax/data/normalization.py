"""Model inputs from stored bytes: floats, channels, size, normalization.

Training augments between `to_float` and `resize`: the stored images are the
smaller ones, and augmentation expects values of 0 to 1.
"""

import math
from collections.abc import Iterable
from numbers import Real

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from fer_jax.errors import UserError, choose, require

NORMALIZATIONS = ("unit", "mean_std")
# Of red, green and blue in gray: Rec. ITU-R BT.601, section 2.5.1.
LUMA = (0.299, 0.587, 0.114)

Statistic = float | Iterable[float]


def prepare(
  images: UInt8[Array, "b h w c"],
  *,
  image_size: int,
  channels: int,
  normalization: str = "unit",
  mean: Statistic = 0.0,
  std: Statistic = 1.0,
) -> Float[Array, "b size size channels"]:
  """Converts stored images to model inputs, without augmentation.

  Args:
    images: as stored, 1 or 3 channels.
    image_size: height and width of the model's input, in pixels.
    channels: channels of the model's input, 1 or 3.
    normalization: as in `normalize`.
    mean: as in `normalize`.
    std: as in `normalize`.
  """
  x = resize(to_float(images, channels), image_size)
  return normalize(x, normalization, mean, std)


def to_float(
  images: UInt8[Array, "b h w c"], channels: int
) -> Float[Array, "b h w channels"]:
  """Converts bytes to floats from 0 to 1, with the channels asked for.

  Args:
    images: as stored, 1 or 3 channels.
    channels: 1 (color is converted to gray) or 3 (gray is repeated).

  Raises:
    UserError: the stored channels cannot be converted to `channels`.
  """
  x = images.astype(jnp.float32) / 255
  stored = images.shape[-1]
  if stored == channels:
    return x
  if (stored, channels) == (1, 3):
    return jnp.repeat(x, 3, axis=-1)
  if (stored, channels) == (3, 1):
    # Products and sums: a matrix product may round to bfloat16 on some devices.
    red, green, blue = jnp.split(x, 3, axis=-1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
  raise UserError(
    f"input.channels={channels} but the images have {stored}: only 1 and 3 can"
    " be converted into each other"
  )


def resize(
  images: Float[Array, "b h w c"], image_size: int
) -> Float[Array, "b size size c"]:
  """Resizes bilinearly to a square, with antialiasing where it shrinks.

  Images that are not square are stretched.

  Args:
    images: the images.
    image_size: height and width of the result, in pixels.
  """
  b, h, w, c = images.shape
  if (h, w) == (image_size, image_size):
    return images
  shape = (b, image_size, image_size, c)
  return jax.image.resize(images, shape, "bilinear", antialias=True)


def normalize(
  images: Float[Array, "b h w c"],
  normalization: str = "unit",
  mean: Statistic = 0.0,
  std: Statistic = 1.0,
) -> Float[Array, "b h w c"]:
  """Normalizes values of 0 to 1.

  Args:
    images: from 0 to 1.
    normalization: `unit` returns the images unchanged; `mean_std` subtracts
      `mean` and divides by `std`.
    mean: one number, or one per channel, on the scale of 0 to 1.
    std: one number, or one per channel, on the scale of 0 to 1.

  Raises:
    UserError: `normalization` is unknown, or `mean` or `std` do not fit the
      channels of the images.
  """
  if _normalization(normalization) == "unit":
    return images
  channels = images.shape[-1]
  means = _statistic("mean", mean, channels)
  stds = _statistic("std", std, channels)
  shape = (1, 1, 1, -1)
  mean_array = jnp.asarray(means, images.dtype).reshape(shape)
  scale = jnp.asarray([1 / s for s in stds], images.dtype).reshape(shape)
  return (images - mean_array) * scale


def check(
  *,
  image_size: int,
  channels: int,
  normalization: str,
  mean: Statistic,
  std: Statistic,
) -> None:
  """Checks the arguments of `prepare` before anything compiles.

  Raises:
    UserError: an argument is out of its range.
  """
  ok = (
    isinstance(image_size, int)
    and not isinstance(image_size, bool)
    and image_size >= 1
  )
  must = "be a number of pixels, 1 or more"
  require(ok, "input.image_size", image_size, must)
  require(channels in (1, 3), "input.channels", channels, "be 1 (gray) or 3")
  if _normalization(normalization) == "mean_std":
    _statistic("mean", mean, channels)
    _statistic("std", std, channels)


def _normalization(name: str) -> str:
  return choose("input.normalization", name, NORMALIZATIONS)


def _statistic(name: str, given: Statistic, channels: int) -> list[float]:
  """Returns `mean` or `std` as one number for each channel."""
  values = list(given) if isinstance(given, Iterable) else [given]
  field = f"input.{name}"
  ok = all(isinstance(v, Real) and math.isfinite(v) for v in values)
  require(ok, field, given, "be numbers")
  ok = len(values) in (1, channels)
  require(ok, field, given, f"be one number, or one per channel ({channels})")
  ok = name == "mean" or min(values) > 0
  require(ok, field, given, "be above 0")
  return [float(v) for v in values] * (channels // len(values))
