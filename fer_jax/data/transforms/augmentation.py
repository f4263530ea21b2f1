"""Random augmentation of training images, inside the compiled step.

Order: flip, warp (resized crop, zoom, rotation, then shift and padded crop,
with one interpolation for all of them), blur, erasing, contrast, brightness.
An augmentation that is off costs nothing: the options are read when the step
is traced. Mixing images with one another is in `mixup`.
"""

import dataclasses
import math
from numbers import Real
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from fer_jax.data.transforms import warping
from fer_jax.data.transforms.photometric import adjust_contrast, blur, erase
from fer_jax.errors import choose, require

# Height over width: Szegedy et al. 2015, section 6, and Zhong et al. 2020,
# algorithm 1, which also gives the areas.
CROP_ASPECT = (3 / 4, 4 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)
ERASED_AREA = (0.02, 0.4)

# Highest value of each numeric option, and its meaning.
_HIGHEST = {
  "shift": (1, "a fraction of the sides"),
  "rotation": (180, "degrees"),
  "zoom": (0.9, "a change of scale"),
  "resized_crop": (1, "the smallest area of the crop, or 0"),
  "crop_padding": (math.inf, "an integer number of pixels"),
  "brightness": (1, "a fraction of white"),
  "contrast": (1, "a change of scale"),
  "blur": (10, "pixels"),
  "random_erasing": (1, "a probability"),
  "mixup": (math.inf, "the alpha of Beta(alpha, alpha)"),
  "cutmix": (math.inf, "the alpha of Beta(alpha, alpha)"),
}


@dataclasses.dataclass(frozen=True)
class Augmentation:
  """Options of augmentation; 0 or False is off.

  Attributes:
    shift: up to this fraction of width and height, in each direction.
    fill: pixels beyond the edge, "nearest" or "zero".
    flip: mirror left-right with probability 0.5.
    rotation: up to this many degrees in each direction.
    zoom: scale by `1 - zoom` to `1 + zoom`.
    resized_crop: crop an area of `resized_crop` to 1 and resize it.
    crop_padding: pad by this many pixels and crop to the original size.
    brightness: add up to this, on the scale of 0 to 1, in each direction.
    contrast: scale the contrast by `1 - contrast` to `1 + contrast`.
    blur: Gaussian blur with a sigma of 0 to `blur` pixels.
    random_erasing: probability of erasing one rectangle.
    mixup: alpha of mixup's Beta(alpha, alpha), see `mixup.mix`.
    cutmix: alpha of CutMix's Beta(alpha, alpha), see `mixup.mix`.
  """

  shift: float = 0.0
  fill: str = "nearest"
  flip: bool = False
  rotation: float = 0.0
  zoom: float = 0.0
  resized_crop: float = 0.0
  crop_padding: int = 0
  brightness: float = 0.0
  contrast: float = 0.0
  blur: float = 0.0
  random_erasing: float = 0.0
  mixup: float = 0.0
  cutmix: float = 0.0


class Draws(NamedTuple):
  """Random numbers of each image, uniform on 0..1.

  All are drawn whichever augmentations are on, so that turning one of them on
  or off does not change the draws of the others.
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
  random_erasing: Float[Array, "b"]
  erased_area: Float[Array, "b"]
  erased_aspect: Float[Array, "b"]
  erased_y: Float[Array, "b"]
  erased_x: Float[Array, "b"]


def augment(
  rng: Key[Array, ""],
  images: Float[Array, "b h w c"],
  index: Int[Array, "b"],
  options: Augmentation,
  products: bool = False,
) -> Float[Array, "b h w c"]:
  """Augments each image at random.

  The result depends on `rng` and the image's `index` only: four devices with
  16 images each give the same result as one device with 64.

  Args:
    rng: the step's key, the same on all devices, used for nothing else.
    images: from 0 to 1.
    index: the position of each image in the global batch.
    options: the augmentations, as `check` accepts them.
    products: how images are warped, see `warping`.

  Returns:
    Images from 0 to 1, in the shape and dtype of `images`.

  Raises:
    UserError: `crop_padding` is as wide as the images.
  """
  if not any_on(options):
    return images
  return apply(draw(rng, index), images, options, products)


def apply(
  u: Draws,
  images: Float[Array, "b h w c"],
  options: Augmentation,
  products: bool = False,
) -> Float[Array, "b h w c"]:
  """Applies `augment` with random numbers that are already drawn."""
  if options.flip:
    images = warping.flip(images, u.flip < 0.5)
  images = _warp(images, u, options, products)
  if options.blur:
    images = blur(images, u.blur * options.blur)
  if options.random_erasing:
    _, h, w, _ = images.shape
    images = erase(images, _erased(u, options.random_erasing, h, w))
  if options.contrast:
    factor = 1 + _symmetric(u.contrast, options.contrast)
    images = adjust_contrast(images, factor)
  if options.brightness:
    delta = _symmetric(u.brightness, options.brightness)
    images += delta.astype(images.dtype)[:, None, None, None]
  # Brightness and contrast leave 0..1, and interpolation does by a rounding.
  return jnp.clip(images, 0, 1)


def any_on(options: Augmentation) -> bool:
  """Returns whether `augment` changes images; mixup and CutMix do not count."""
  off = ("fill", "mixup", "cutmix")
  fields = dataclasses.asdict(options)
  return any(bool(value) for name, value in fields.items() if name not in off)


def check(options: Augmentation) -> None:
  """Checks the options before anything compiles.

  Raises:
    UserError: an option is out of its range.
  """
  flip = options.flip
  require(isinstance(flip, bool), "augment.flip", flip, "be True or False")
  choose("augment.fill", options.fill, warping.FILLS)
  for name, (highest, meaning) in _HIGHEST.items():
    value = getattr(options, name)
    number = isinstance(value, Real) and not isinstance(value, bool)
    integer = name != "crop_padding" or isinstance(value, int)
    ok = number and integer and math.isfinite(value) and 0 <= value <= highest
    span = f"0 to {highest}" if math.isfinite(highest) else "0 or more"
    require(ok, f"augment.{name}", value, f"be {meaning}, {span}")


def draw(rng: Key[Array, ""], index: Int[Array, "b"]) -> Draws:
  """Draws the random numbers of the images at `index` in the global batch."""

  def one(i):
    return jax.random.uniform(jax.random.fold_in(rng, i), (len(Draws._fields),))

  return Draws(*jax.vmap(one)(index).T)


def _symmetric(u: Float[Array, "b"], most: float) -> Float[Array, "b"]:
  return (2 * u - 1) * most


def _warp(
  images: Float[Array, "b h w c"],
  u: Draws,
  options: Augmentation,
  products: bool,
) -> Float[Array, "b h w c"]:
  """Crops, zooms, rotates and shifts, in this order, by one interpolation."""
  _, h, w, _ = images.shape
  padding = options.crop_padding
  side = min(h, w)
  must = f"be less than the image size of {side} pixels"
  require(padding < side, "augment.crop_padding", padding, must)
  if options.rotation or options.zoom or options.resized_crop:
    offset = _offset(u, options, h, w)
    matrix, center = _crop_zoom_rotate(u, options, h, w)
    # Not a matrix product, which may round to bfloat16 on some devices.
    source = center - (matrix * offset[:, None, :]).sum(-1)
    return warping.affine(
      images,
      matrix,
      source,
      fill=options.fill,
      diagonal=not options.rotation,
      products=products,
    )
  if options.shift or padding:
    limit = options.shift * max(h, w) + padding
    offset = _offset(u, options, h, w)
    return warping.translate(
      images, offset, limit=limit, fill=options.fill, products=products
    )
  return images


def _offset(
  u: Draws, options: Augmentation, h: int, w: int
) -> Float[Array, "b 2"]:
  """Returns the translation in pixels (down, right)."""

  def one(shift, padded, side):
    # Cropping a padded image to its original size shifts it by whole pixels.
    whole = jnp.floor(padded * (2 * options.crop_padding + 1))
    return (
      _symmetric(shift, options.shift * side) + whole - options.crop_padding
    )

  y = one(u.shift_y, u.padded_y, h)
  return jnp.stack([y, one(u.shift_x, u.padded_x, w)], axis=-1)


def _crop_zoom_rotate(
  u: Draws, options: Augmentation, h: int, w: int
) -> tuple[Float[Array, "b 2 2"], Float[Array, "b 2"]]:
  """Returns the map from output to source pixels: matrix and crop center."""
  smallest = options.resized_crop or 1.0
  area = smallest + u.crop_area * (1 - smallest)
  crop_h, crop_w = warping.fitting_sides(area, u.crop_aspect, CROP_ASPECT, h, w)
  # The crop ranges from the first pixel's center to the last one's, so it never
  # reads the pixels that `fill` adds.
  center_y = (u.crop_y - 0.5) * (1 - crop_h / h) * (h - 1)
  center_x = (u.crop_x - 0.5) * (1 - crop_w / w) * (w - 1)
  # One zoom for both axes keeps a face's proportions.
  zoom = 1 + _symmetric(u.zoom, options.zoom)
  angle = jnp.deg2rad(_symmetric(u.rotation, options.rotation))
  matrix = warping.rotate_and_scale(angle, crop_h / h / zoom, crop_w / w / zoom)
  return matrix, jnp.stack([center_y, center_x], axis=-1)


def _erased(
  u: Draws, probability: float, h: int, w: int
) -> Bool[Array, "b h w"]:
  """Returns the rectangle to erase in each image; empty where it is off."""
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
  return box & (u.random_erasing < probability)[:, None, None]
