"""From stored bytes to what a model is fed: floats, channels, size, scale.

Training augments between `to_float` and `resize`: the stored images are the
smaller ones, and augmentation expects values of 0 to 1.
"""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from fer_jax.errors import UserError, choose, require

NORMALIZATIONS = ("unit", "mean_std")
# Of red, green and blue in grey: Rec. ITU-R BT.601, section 2.5.1.
LUMA = (0.299, 0.587, 0.114)


def prepare(
  images: UInt8[Array, "b h w c"], config: ConfigDict
) -> Float[Array, "b size size channels"]:
  """Makes stored images what a model is fed, without augmentation.

  Args:
    images: as stored, 1 or 3 channels.
    config: the `input` section.
  """
  x = to_float(images, config.channels)
  return normalize(resize(x, config.image_size), config)


def to_float(
  images: UInt8[Array, "b h w c"], channels: int
) -> Float[Array, "b h w channels"]:
  """Makes bytes floats from 0 to 1, grey or of three channels.

  Args:
    images: as stored, 1 or 3 channels.
    channels: 1 (colour becomes grey) or 3 (grey three times).

  Raises:
    UserError: no way from the stored channels to `channels`.
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
    f"--config.input.channels={channels} but the images have {stored}: "
    "1 and 3 can be made into each other"
  )


def resize(
  images: Float[Array, "b h w c"], image_size: int
) -> Float[Array, "b size size c"]:
  """Resizes bilinearly to a square, smoothed where it shrinks.

  Images of another shape than square are stretched to one.

  Args:
    images: the images.
    image_size: height and width to give them, in pixels.
  """
  b, h, w, c = images.shape
  if (h, w) == (image_size, image_size):
    return images
  shape = (b, image_size, image_size, c)
  return jax.image.resize(images, shape, "bilinear", antialias=True)


def normalize(
  images: Float[Array, "b h w c"], config: ConfigDict
) -> Float[Array, "b h w c"]:
  """Scales values of 0 to 1 as `normalization` says.

  Args:
    images: from 0 to 1.
    config: the `input` section: `unit` leaves them, `mean_std` subtracts
      `mean` and divides by `std`.

  Raises:
    UserError: `normalization` is unknown, or `mean` or `std` do not fit the
      channels of the images.
  """
  if _normalization(config) == "unit":
    return images
  channels = images.shape[-1]
  mean = _statistic(config, "mean", channels)
  std = _statistic(config, "std", channels)
  shape = (1, 1, 1, -1)
  mean_array = jnp.asarray(mean, images.dtype).reshape(shape)
  scale = jnp.asarray([1 / s for s in std], images.dtype).reshape(shape)
  return (images - mean_array) * scale


def check(config: ConfigDict) -> None:
  """Checks the `input` section before anything compiles.

  Raises:
    UserError: a field is out of its range.
  """
  size = config.image_size
  ok = isinstance(size, int) and not isinstance(size, bool) and size >= 1
  require(ok, "input.image_size", size, "be a number of pixels, 1 or more")
  channels = config.channels
  require(channels in (1, 3), "input.channels", channels, "be 1 (grey) or 3")
  if _normalization(config) == "mean_std":
    _statistic(config, "mean", channels)
    _statistic(config, "std", channels)


def _normalization(config: ConfigDict) -> str:
  return choose(
    "--config.input.normalization", config.normalization, NORMALIZATIONS
  )


def _statistic(config: ConfigDict, name: str, channels: int) -> list[float]:
  """Returns `mean` or `std` as one number for each channel."""
  given: Any = config[name]
  values = list(given) if isinstance(given, Iterable) else [given]
  field = f"input.{name}"
  ok = all(isinstance(v, Real) and math.isfinite(v) for v in values)
  require(ok, field, given, "be numbers")
  ok = len(values) in (1, channels)
  require(ok, field, given, f"be one number, or one a channel ({channels})")
  ok = name == "mean" or min(values) > 0
  require(ok, field, given, "be above 0")
  return [float(v) for v in values] * (channels // len(values))
