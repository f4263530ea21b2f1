"""Views of an image for test-time augmentation; none is random."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.data import normalization

# Side of a crop, of the image's. Five of them cover all of it.
CROP = 0.9

Images = Float[Array, "b h w c"]
Views = list[Float[Array, "b size size c"]]


def none(images: Images, image_size: int) -> Views:
  """The image itself, resized for the model."""
  return [normalization.resize(images, image_size)]


def flip(images: Images, image_size: int) -> Views:
  """The image and its mirror image."""
  images = normalization.resize(images, image_size)
  return [images, mirrored(images)]


def ten_crop(images: Images, image_size: int) -> Views:
  """Four corners and the middle, and their mirror images.

  As Krizhevsky et al. 2012 (4.1); crops have `CROP` of the side and are
  resized to the whole.
  """
  height, width = images.shape[1:3]
  crop_height, crop_width = round(CROP * height), round(CROP * width)
  down, right = height - crop_height, width - crop_width
  corners = [(0, 0), (0, right), (down, 0), (down, right)]
  crops = [
    normalization.resize(
      images[:, top : top + crop_height, left : left + crop_width], image_size
    )
    for top, left in [*corners, (down // 2, right // 2)]
  ]
  return crops + [mirrored(crop) for crop in crops]


def mirrored(images: Images) -> Images:
  """The images with left and right exchanged."""
  return jnp.flip(images, axis=2)


# Name -> the views whose probabilities are averaged.
VIEWS: dict[str, Callable[[Images, int], Views]] = {
  "none": none,
  "flip": flip,
  "ten_crop": ten_crop,
}
