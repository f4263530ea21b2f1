"""Translation, rotation and scaling of images with one interpolation each.

A TPU gathers pixels, and slices at positions that differ between images, far
slower than it computes the network. There, weights are multiplied instead
(`products`): each output pixel is a sum over all rows and columns, of which all
but two have the weight 0.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float

# Name of a fill, as users type it -> mode of `jnp.pad`.
FILLS = {"nearest": "edge", "zero": "constant"}

# Images of more pixels are gathered in any case, if they are turned: products
# grow with the square of the pixels.
_LARGEST_PRODUCT = 112 * 112


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
  products: bool = False,
) -> Float[Array, "b h w c"]:
  """Translates each image by its own, possibly fractional, offset.

  `affine` can do the same, but gathers pixel by pixel; this reads one slice
  of the padded image.

  Args:
    images: the images.
    offset: pixels (down, right); an integer offset copies pixels unchanged.
    limit: the largest possible offset, in pixels, known when traced.
    fill: pixels beyond the edge, a key of `FILLS`.
    products: whether to multiply weights instead of reading slices.

  Returns:
    The translated images, in the dtype of `images`.
  """
  _, h, w, c = images.shape
  if products:
    y = jnp.arange(h, dtype=jnp.float32)[None, :] - offset[:, :1]
    x = jnp.arange(w, dtype=jnp.float32)[None, :] - offset[:, 1:]
    return _sample_axes(images, y, x, fill)
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
  diagonal: bool = False,
  products: bool = False,
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
    diagonal: whether every matrix is: nothing is turned.
    products: whether to multiply weights instead of gathering pixels.

  Returns:
    The warped images, in the dtype of `images`.
  """
  b, h, w, _ = images.shape
  y = (jnp.arange(h, dtype=jnp.float32) - (h - 1) / 2)[None, :, None]
  x = (jnp.arange(w, dtype=jnp.float32) - (w - 1) / 2)[None, None, :]
  m = matrix[:, :, :, None, None]
  o = offset[:, :, None, None]
  source_y = m[:, 0, 0] * y + m[:, 0, 1] * x + o[:, 0] + (h - 1) / 2
  source_x = m[:, 1, 0] * y + m[:, 1, 1] * x + o[:, 1] + (w - 1) / 2
  if products and diagonal:
    return _sample_axes(images, source_y[:, :, 0], source_x[:, 0], fill)
  if products and h * w <= _LARGEST_PRODUCT:
    rows = _weights(source_y.reshape(b, h * w), h, fill, images.dtype)
    columns = _weights(source_x.reshape(b, h * w), w, fill, images.dtype)
    # The highest precision: otherwise pixels are rounded to bfloat16.
    sums = jnp.einsum("bph,bhwc->bpwc", rows, images, precision="highest")
    return (sums * columns[..., None]).sum(2).reshape(images.shape)
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


def _sample_axes(
  images: Float[Array, "b h w c"],
  y: Float[Array, "b p"],
  x: Float[Array, "b q"],
  fill: str,
) -> Float[Array, "b p q c"]:
  """Samples each image at all pairs of its rows `y` and columns `x`."""
  _, h, w, _ = images.shape
  rows = _weights(y, h, fill, images.dtype)
  columns = _weights(x, w, fill, images.dtype)
  sums = jnp.einsum("bph,bhwc->bpwc", rows, images, precision="highest")
  return jnp.einsum("bqw,bpwc->bpqc", columns, sums, precision="highest")


def _weights(
  source: Float[Array, "b *p"], n: int, fill: str, dtype: jnp.dtype
) -> Float[Array, "b *p n"]:
  """Returns the weight of each of `n` pixels at positions along an axis.

  Outside the image, "zero" has no weights, "nearest" those of the edge.
  """
  if fill == "nearest":
    source = jnp.clip(source, 0, n - 1)
  pixels = jnp.arange(n, dtype=source.dtype)[(None,) * source.ndim]
  return jnp.maximum(0, 1 - jnp.abs(source[..., None] - pixels)).astype(dtype)


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
