"""Test-time augmentation: views of an image over which to average."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.data import normalization

# Side of a crop relative to the image. Five crops cover the whole image.
CROP = 0.9

Images = Float[Array, "b h w c"]
Views = list[Float[Array, "b size size c"]]


def none(images: Images, image_size: int) -> Views:
  """Returns the image, resized for the model."""
  return [normalization.resize(images, image_size)]


def flip(images: Images, image_size: int) -> Views:
  """Returns the image and its mirror image."""
  images = normalization.resize(images, image_size)
  return [images, mirrored(images)]


def ten_crop(images: Images, image_size: int) -> Views:
  """Returns crops of the corners and the center, and their mirror images.

  As in Krizhevsky et al. 2012 (4.1); a crop has `CROP` of the image's side and
  is resized to the model's input size.
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
  """Returns the images with left and right exchanged."""
  return jnp.flip(images, axis=2)


# The views whose probabilities are averaged, by name.
VIEWS: dict[str, Callable[[Images, int], Views]] = {
  "none": none,
  "flip": flip,
  "ten_crop": ten_crop,
}
