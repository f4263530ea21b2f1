"""Translation, rotation and scaling of images with one interpolation each."""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

# Name of a fill, as users type it -> mode of `jnp.pad`.
FILLS = {"nearest": "edge", "zero": "constant"}


def flip(
  images: Float[Array, "b h w c"], mirrored: Bool[Array, "b"]
) -> Float[Array, "b h w c"]:
  """Mirrors the images left-right where `mirrored` is true."""
  return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def translate(
  images: Float[Array, "b h w c"],
  offset: Float[Array, "b 2"],
  *,
  limit: float,
  fill: str = "nearest",
) -> Float[Array, "b h w c"]:
  """Translates each image by its own, possibly fractional, offset.

  `affine` can do the same, but gathers pixel by pixel; this reads one slice
  of the padded image.

  Args:
    images: the images.
    offset: pixels (down, right); an integer offset copies pixels unchanged.
    limit: the largest possible offset, in pixels, known when traced.
    fill: pixels beyond the edge, a key of `FILLS`.

  Returns:
    The translated images, in the dtype of `images`.
  """
  _, h, w, c = images.shape
  margin = math.ceil(limit)
  source = -offset
  whole = jnp.floor(source)
  part = (source - whole).astype(images.dtype)[:, :, None, None, None]
  start = whole.astype(jnp.int32) + margin
  # One more pixel below and right: the neighbor to interpolate with.
  sides = (margin, margin + 1)
  padded = jnp.pad(images, ((0, 0), sides, sides, (0, 0)), mode=FILLS[fill])
  x = jax.vmap(
    lambda image, i: lax.dynamic_slice(
      image, (i[0], i[1], 0), (h + 1, w + 1, c)
    )
  )(padded, start)
  x = x[:, :-1] * (1 - part[:, 0]) + x[:, 1:] * part[:, 0]
  return x[:, :, :-1] * (1 - part[:, 1]) + x[:, :, 1:] * part[:, 1]


def affine(
  images: Float[Array, "b h w c"],
  matrix: Float[Array, "b 2 2"],
  offset: Float[Array, "b 2"],
  *,
  fill: str = "nearest",
) -> Float[Array, "b h w c"]:
  """Samples each image bilinearly at an affine map of its pixel grid.

  The output pixel at `p` is the image at `matrix @ p + offset`; both are
  (row, column) in pixels, relative to the center of the image. Shrinking is
  not antialiased.

  Args:
    images: the images.
    matrix: of each image, from output to source positions.
    offset: of each image, the source position of the output's center.
    fill: pixels outside the image, a key of `FILLS`.

  Returns:
    The warped images, in the dtype of `images`.
  """
  _, h, w, _ = images.shape
  y = (jnp.arange(h, dtype=jnp.float32) - (h - 1) / 2)[None, :, None]
  x = (jnp.arange(w, dtype=jnp.float32) - (w - 1) / 2)[None, None, :]
  m = matrix[:, :, :, None, None]
  o = offset[:, :, None, None]
  source_y = m[:, 0, 0] * y + m[:, 0, 1] * x + o[:, 0] + (h - 1) / 2
  source_x = m[:, 1, 0] * y + m[:, 1, 1] * x + o[:, 1] + (w - 1) / 2
  if fill == "zero":
    # With a border of zeros, the nearest pixel is zero everywhere outside.
    images = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    source_y, source_x = source_y + 1, source_x + 1

  def neighbors(source, n):
    source = jnp.clip(source, 0, n - 1)
    first = jnp.floor(source)
    part = (source - first).astype(images.dtype)[..., None]
    first = first.astype(jnp.int32)
    return first, jnp.minimum(first + 1, n - 1), part

  top, bottom, down = neighbors(source_y, images.shape[1])
  left, right, across = neighbors(source_x, images.shape[2])

  @jax.vmap
  def at(image, rows, columns):
    return image.at[rows, columns].get(mode="promise_in_bounds")

  def along(rows):
    first, second = at(images, rows, left), at(images, rows, right)
    return first * (1 - across) + second * across

  return along(top) * (1 - down) + along(bottom) * down


def rotate_and_scale(
  angle: Float[Array, "b"],
  scale_y: Float[Array, "b"],
  scale_x: Float[Array, "b"],
) -> Float[Array, "b 2 2"]:
  """Returns the matrices of a rotation followed by a scaling of each axis.

  Args:
    angle: radians; the image that `affine` returns is rotated clockwise.
    scale_y: source rows per output row; below 1 enlarges.
    scale_x: source columns per output column; below 1 enlarges.
  """
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  row_y = jnp.stack([scale_y * cos, -scale_y * sin], axis=-1)
  row_x = jnp.stack([scale_x * sin, scale_x * cos], axis=-1)
  return jnp.stack([row_y, row_x], axis=-2)


def fitting_sides(
  area: Float[Array, "b"],
  u: Float[Array, "b"],
  aspect: tuple[float, float],
  h: int,
  w: int,
) -> tuple[Float[Array, "b"], Float[Array, "b"]]:
  """Returns height and width of rectangles that fit into an image.

  Paper: Inception's crop and random erasing redraw area and aspect ratio until
  the rectangle fits. Here the aspect ratio is drawn, log-uniformly, among those
  that fit for the area.

  Args:
    area: fraction of the image's area, above 0 and at most 1.
    u: position of the logarithm of the aspect ratio in its range, 0..1.
    aspect: lowest and highest aspect ratio, height over width.
    h: the image's height in pixels.
    w: the image's width in pixels.
  """
  # At these aspect ratios the rectangle is as wide, or as high, as the image.
  fitting = (area * h / w, h / w / area)
  low, high = (jnp.log(jnp.clip(a, *fitting)) for a in aspect)
  ratio = jnp.exp(low + u * (high - low))
  root, tall = jnp.sqrt(area * h * w), jnp.sqrt(ratio)
  return jnp.minimum(root * tall, h), jnp.minimum(root / tall, w)
