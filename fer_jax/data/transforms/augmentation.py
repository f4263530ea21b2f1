"""Random changes of training images, inside the compiled step.

Order: mirrored, warped (resized crop, zoom, rotation, then shift and padded
crop, with one interpolation for all of them), blurred, erased, contrast,
brightness. What is off costs nothing: the configuration is read when the step
is traced. Mixing of images with one another is in `mixing`.
"""

import math
from numbers import Real
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from fer_jax.data.transforms import warping
from fer_jax.errors import choose, require

# Height over width: Szegedy et al. 2015, section 6, and Zhong et al. 2020,
# algorithm 1, which also gives the areas.
CROP_ASPECT = (3 / 4, 4 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)
ERASED_AREA = (0.02, 0.4)

# The highest value of each field that is a number, and what it means.
_HIGHEST = {
  "shift": (1, "a fraction of the sides"),
  "rotation": (180, "degrees"),
  "zoom": (0.9, "a change of scale"),
  "resized_crop": (1, "the smallest area of the crop, or 0"),
  "crop_padding": (math.inf, "a whole number of pixels"),
  "brightness": (1, "a fraction of white"),
  "contrast": (1, "a change of scale"),
  "blur": (10, "pixels"),
  "erasing": (1, "a probability"),
  "mixup": (math.inf, "the alpha of Beta(alpha, alpha)"),
  "cutmix": (math.inf, "the alpha of Beta(alpha, alpha)"),
}


class Draws(NamedTuple):
  """One image's random numbers, uniform on 0..1.

  All are drawn whatever is on, so that turning one augmentation on or off
  leaves the others' draws as they are.
  """

  flip: Float[Array, "b"]
  crop_area: Float[Array, "b"]
  crop_aspect: Float[Array, "b"]
  crop_y: Float[Array, "b"]
  crop_x: Float[Array, "b"]
  zoom: Float[Array, "b"]
  rotation: Float[Array, "b"]
  shift_y: Float[Array, "b"]
  shift_x: Float[Array, "b"]
  padded_y: Float[Array, "b"]
  padded_x: Float[Array, "b"]
  blur: Float[Array, "b"]
  contrast: Float[Array, "b"]
  brightness: Float[Array, "b"]
  erasing: Float[Array, "b"]
  erased_area: Float[Array, "b"]
  erased_aspect: Float[Array, "b"]
  erased_y: Float[Array, "b"]
  erased_x: Float[Array, "b"]


def augment(
  rng: Key[Array, ""],
  images: Float[Array, "b h w c"],
  index: Int[Array, "b"],
  config: ConfigDict,
) -> Float[Array, "b h w c"]:
  """Changes each image at random, as `config` says.

  What happens to an image depends on `rng` and its `index` only: four devices
  with 16 images each give what one device gives with 64.

  Args:
    rng: the step's key, the same on all devices, used for nothing else.
    images: from 0 to 1.
    index: the position of each image in the global batch.
    config: the `augment` section, as `check` accepts it.

  Returns:
    Images from 0 to 1, of the shape and dtype given.

  Raises:
    UserError: `crop_padding` is as wide as the images.
  """
  if not any_on(config):
    return images
  return apply(draw(rng, index), images, config)


def apply(
  u: Draws, images: Float[Array, "b h w c"], config: ConfigDict
) -> Float[Array, "b h w c"]:
  """Does what `augment` does, with random numbers already drawn."""
  if config.flip:
    images = warping.flip(images, u.flip < 0.5)
  images = _warp(images, u, config)
  if config.blur:
    images = blur(images, u.blur * config.blur)
  if config.erasing:
    _, h, w, _ = images.shape
    images = erase(images, _erased(u, config.erasing, h, w))
  if config.contrast:
    factor = 1 + _either_way(u.contrast, config.contrast)
    images = adjust_contrast(images, factor)
  if config.brightness:
    delta = _either_way(u.brightness, config.brightness)
    images += delta.astype(images.dtype)[:, None, None, None]
  # Brightness and contrast leave 0..1, and interpolation does by a rounding.
  return jnp.clip(images, 0, 1)


def any_on(config: ConfigDict) -> bool:
  """Returns whether `augment` changes images (`mix` is not asked)."""
  off = ("fill", "mixup", "cutmix")
  return any(bool(config[name]) for name in config if name not in off)


def check(config: ConfigDict) -> None:
  """Checks the `augment` section before anything compiles.

  Raises:
    UserError: a field is out of its range; the message names it as typed.
  """
  flip = config.flip
  require(isinstance(flip, bool), "augment.flip", flip, "be True or False")
  choose("--config.augment.fill", config.fill, warping.FILLS)
  for name, (highest, meaning) in _HIGHEST.items():
    value = config[name]
    number = isinstance(value, Real) and not isinstance(value, bool)
    whole = name != "crop_padding" or isinstance(value, int)
    ok = number and whole and math.isfinite(value) and 0 <= value <= highest
    span = f"0 to {highest}" if math.isfinite(highest) else "0 or more"
    require(ok, f"augment.{name}", value, f"be {meaning}, {span}")


def draw(rng: Key[Array, ""], index: Int[Array, "b"]) -> Draws:
  """Draws the random numbers of the images at `index` in the global batch."""

  def one(i):
    return jax.random.uniform(jax.random.fold_in(rng, i), (len(Draws._fields),))

  return Draws(*jax.vmap(one)(index).T)


def blur(
  images: Float[Array, "b h w c"], sigma: Float[Array, "b"]
) -> Float[Array, "b h w c"]:
  """Blurs with a Gaussian of each image's own width.

  At the edges the kernel is cut off and its rest sums to 1. As a product with
  a matrix along each axis it needs no bound on sigma, and on a CPU what comes
  before is not computed anew for every tap.

  Args:
    images: the images.
    sigma: in pixels; 0 leaves an image as it is.

  Returns:
    The blurred images, in the dtype of `images`.
  """

  def kernels(n):
    i = jnp.arange(n, dtype=jnp.float32)
    distance = (i[:, None] - i[None, :])[None, :, :]
    # Where sigma is 0 all but the middle of the kernel underflows to 0.
    unit = distance / jnp.maximum(sigma, 1e-3)[:, None, None]
    weights = jnp.exp(-0.5 * unit**2)
    weights /= weights.sum(axis=2, keepdims=True)
    return weights.astype(images.dtype)

  _, h, w, _ = images.shape
  # The highest precision: else some devices round to fewer bits.
  x = jnp.einsum("bih,bhwc->biwc", kernels(h), images, precision="highest")
  return jnp.einsum("bjw,biwc->bijc", kernels(w), x, precision="highest")


def adjust_contrast(
  images: Float[Array, "b h w c"], factor: Float[Array, "b"]
) -> Float[Array, "b h w c"]:
  """Scales each image's distance from its own mean by its `factor`."""
  mean = images.mean(axis=(1, 2, 3), keepdims=True)
  return mean + (images - mean) * factor.astype(images.dtype).reshape(
    mean.shape
  )


def erase(
  images: Float[Array, "b h w c"], erased: Bool[Array, "b h w"]
) -> Float[Array, "b h w c"]:
  """Sets the erased pixels of an image to the mean of that image."""
  mean = images.mean(axis=(1, 2), keepdims=True)
  return jnp.where(erased[..., None], mean, images)


def _either_way(u: Float[Array, "b"], most: float) -> Float[Array, "b"]:
  return (2 * u - 1) * most


def _warp(
  images: Float[Array, "b h w c"], u: Draws, config: ConfigDict
) -> Float[Array, "b h w c"]:
  """Crops, zooms, turns and shifts, in this order, by one interpolation."""
  _, h, w, _ = images.shape
  padding = config.crop_padding
  side = min(h, w)
  must = f"be less than the {side} pixels that the images have"
  require(padding < side, "augment.crop_padding", padding, must)
  if config.rotation or config.zoom or config.resized_crop:
    offset = _offset(u, config, h, w)
    matrix, centre = _crop_zoom_turn(u, config, h, w)
    # Not a matrix product, which may round to bfloat16 on some devices.
    source = centre - (matrix * offset[:, None, :]).sum(-1)
    return warping.affine(images, matrix, source, fill=config.fill)
  if config.shift or padding:
    limit = config.shift * max(h, w) + padding
    offset = _offset(u, config, h, w)
    return warping.translate(images, offset, limit=limit, fill=config.fill)
  return images


def _offset(
  u: Draws, config: ConfigDict, h: int, w: int
) -> Float[Array, "b 2"]:
  """Returns pixels down and to the right, by `shift` and `crop_padding`."""

  def one(shift, padded, side):
    # Cropping a padded image back to its size moves it by whole pixels.
    whole = jnp.floor(padded * (2 * config.crop_padding + 1))
    return _either_way(shift, config.shift * side) + whole - config.crop_padding

  y = one(u.shift_y, u.padded_y, h)
  return jnp.stack([y, one(u.shift_x, u.padded_x, w)], axis=-1)


def _crop_zoom_turn(
  u: Draws, config: ConfigDict, h: int, w: int
) -> tuple[Float[Array, "b 2 2"], Float[Array, "b 2"]]:
  """Returns where output pixels come from: matrix, and crop's centre."""
  smallest = config.resized_crop or 1.0
  area = smallest + u.crop_area * (1 - smallest)
  crop_h, crop_w = warping.fitting_sides(area, u.crop_aspect, CROP_ASPECT, h, w)
  # From the place where the first pixel's centre is met to that of the last:
  # a crop reads nothing of what `fill` puts outside.
  centre_y = (u.crop_y - 0.5) * (1 - crop_h / h) * (h - 1)
  centre_x = (u.crop_x - 0.5) * (1 - crop_w / w) * (w - 1)
  # One zoom for both sides: a face keeps its proportions.
  zoom = 1 + _either_way(u.zoom, config.zoom)
  angle = jnp.deg2rad(_either_way(u.rotation, config.rotation))
  matrix = warping.turn_and_scale(angle, crop_h / h / zoom, crop_w / w / zoom)
  return matrix, jnp.stack([centre_y, centre_x], axis=-1)


def _erased(
  u: Draws, probability: float, h: int, w: int
) -> Bool[Array, "b h w"]:
  """Draws each image's rectangle to erase; empty where none is."""
  low, high = ERASED_AREA
  area = low + u.erased_area * (high - low)
  tall, wide = warping.fitting_sides(area, u.erased_aspect, ERASED_ASPECT, h, w)

  def inside(side, place, n):
    length = jnp.clip(jnp.round(side), 1, n)[:, None]
    start = jnp.floor(place[:, None] * (n - length + 1))
    position = jnp.arange(n, dtype=jnp.float32)[None, :]
    return (position >= start) & (position < start + length)

  rows, columns = inside(tall, u.erased_y, h), inside(wide, u.erased_x, w)
  box = rows[:, :, None] & columns[:, None, :]
  return box & (u.erasing < probability)[:, None, None]
