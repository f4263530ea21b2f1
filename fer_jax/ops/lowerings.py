"""Lowerings of a convolution: equivalent computations of different speed.

Every function here computes `lax.conv_general_dilated` in NHWC/HWIO layout,
`xla` by that operation and the others by matrix products. XLA's CPU backend
has a fast path for matrix products, but none for most of the convolutions in a
network on 48x48 images.
"""

from collections.abc import Iterator

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

# (before, after) in pixels, of rows and of columns.
Pads = tuple[tuple[int, int], tuple[int, int]]
Strides = tuple[int, int]  # of rows and of columns


def xla(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw i k"],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow k"]:
  """Computes XLA's convolution; grouped if the kernel has fewer inputs."""
  return lax.conv_general_dilated(
    x,
    kernel,
    strides,
    pads,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=x.shape[-1] // kernel.shape[2],
  )


def pointwise(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "1 1 c k"],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow k"]:
  """Computes a 1x1 convolution without padding as one matrix product."""
  del pads
  return _product(x[:, :: strides[0], :: strides[1]], kernel[0, 0])


def shift_and_add(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw c k"],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow k"]:
  """Computes a convolution as a sum of one matrix product per kernel tap.

  Each tap multiplies only the pixels inside the image. Skipping the padding
  saves more than half of the work of a 3x3 kernel on a 2x2 feature map.
  """
  out_h, out_w = output_size(x.shape, kernel.shape, strides, pads)
  out = None
  for i, rows in _taps(kernel.shape[0], x.shape[1], out_h, strides[0], pads[0]):
    for j, cols in _taps(
      kernel.shape[1], x.shape[2], out_w, strides[1], pads[1]
    ):
      y = _product(x[:, rows.source, cols.source], kernel[i, j])
      y = jnp.pad(y, ((0, 0), rows.border, cols.border, (0, 0)))
      out = y if out is None else out + y
  if out is None:  # Every tap lies in the padding.
    out = jnp.zeros((x.shape[0], out_h, out_w, kernel.shape[3]), x.dtype)
  return out


def im2col(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw c k"],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow k"]:
  """Computes a convolution as one matrix product over patches (im2col)."""
  kh, kw, c, k = kernel.shape
  patches = jnp.concatenate(
    list(windows(x, (kh, kw), strides, pads, 0.0)), axis=-1
  )
  return _product(patches, kernel.reshape(kh * kw * c, k))


def space_to_depth(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw c k"],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow k"]:
  """Computes a strided convolution as one of stride 1 over blocks of pixels.

  The stem's 7x7 stride 2 kernel on 1 channel becomes a 4x4 stride 1 kernel on
  4 channels, which reads longer contiguous pieces of memory. The result is
  computed by `im2col`.
  """
  (sh, sw), (kh, kw, c, k) = strides, kernel.shape
  out_h, out_w = output_size(x.shape, kernel.shape, strides, pads)
  mh, mw = -(-kh // sh), -(-kw // sw)  # kernel size in blocks
  padded_h, padded_w = (out_h + mh - 1) * sh, (out_w + mw - 1) * sw
  (top, _), (left, _) = pads
  x = lax.pad(
    x,
    jnp.zeros((), x.dtype),
    (
      (0, 0, 0),
      (top, padded_h - x.shape[1] - top, 0),
      (left, padded_w - x.shape[2] - left, 0),
      (0, 0, 0),
    ),
  )
  x = _stack_blocks(x, sh, sw)
  kernel = jnp.pad(
    kernel, ((0, mh * sh - kh), (0, mw * sw - kw), (0, 0), (0, 0))
  )
  kernel = kernel.reshape(mh, sh, mw, sw, c, k).transpose(0, 2, 1, 3, 4, 5)
  kernel = kernel.reshape(mh, mw, sh * sw * c, k)
  return im2col(x, kernel, (1, 1), ((0, 0), (0, 0)))


def depthwise(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw 1 c"],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow c"]:
  """Computes a depthwise convolution as a sum of shifted products."""
  kh, kw, _, _ = kernel.shape
  taps = kernel.reshape(kh * kw, 1, 1, 1, -1)
  pieces = windows(x, (kh, kw), strides, pads, 0.0)
  return sum(piece * tap for piece, tap in zip(pieces, taps, strict=True))


def depthwise_rounded_once(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw 1 c"],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow c"]:
  """Computes `depthwise` in float32 or wider, and rounds the result."""
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  y = depthwise(x.astype(dtype), kernel.astype(dtype), strides, pads)
  # Without the barrier, XLA keeps the wide result for a norm that follows.
  return lax.optimization_barrier(y.astype(x.dtype))


def max_pool(
  x: Float[Array, "b h w c"],
  window: tuple[int, int],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow c"]:
  """Computes max pooling as a maximum of shifted slices.

  Of equal values, the first receives the gradient. Unlike XLA's operation, it
  ignores NaN after a window's first value (of padding, -inf): maps that are
  NaN everywhere stay so, except for windows that begin in the padding.
  """
  out = None
  for shifted in windows(x, window, strides, pads, -jnp.inf):
    out = shifted if out is None else jnp.where(shifted > out, shifted, out)
  assert out is not None
  return out


def output_size(
  image: tuple[int, ...],
  kernel: tuple[int, ...],
  strides: Strides,
  pads: Pads,
) -> tuple[int, int]:
  """Returns the height and width of the output, for shapes NHWC and HW...

  >>> output_size((1, 48, 48, 1), (7, 7, 1, 64), (2, 2), ((3, 3), (3, 3)))
  (24, 24)
  """
  height, width = (
    max(0, (n + sum(pad) - k) // s + 1)
    for n, pad, k, s in zip(image[1:3], pads, kernel[:2], strides, strict=True)
  )
  return height, width


def _product(x: Array, matrix: Array) -> Array:
  """Contracts the last axis of `x` with the first axis of `matrix`."""
  rows = x.reshape(-1, x.shape[-1])
  out = lax.dot_general(rows, matrix, (((1,), (0,)), ((), ())))
  return out.reshape(*x.shape[:-1], matrix.shape[-1])


class _Tap:
  """The pixels that one kernel row (or column) reads.

  Attributes:
    source: slice of the input axis.
    border: output positions before and after those that read a pixel.
  """

  def __init__(self, first: int, last: int, size: int, start: int, stride: int):
    self.source = slice(start, start + (last - first) * stride + 1, stride)
    self.border = (first, size - 1 - last)


def _taps(
  kernel: int, size: int, out: int, stride: int, pad: tuple[int, int]
) -> Iterator[tuple[int, _Tap]]:
  """Yields the taps of one axis that read any pixel of the image."""
  for i in range(kernel):
    first = max(0, -((i - pad[0]) // stride))
    last = min(out - 1, (size - 1 + pad[0] - i) // stride)
    if first <= last:
      yield i, _Tap(first, last, out, first * stride + i - pad[0], stride)


def windows(
  x: Array,
  window: tuple[int, int],
  strides: Strides,
  pads: Pads,
  value: float,
) -> Iterator[Array]:
  """Yields, for each kernel tap, the pixel that each output position reads."""
  out_h, out_w = output_size(x.shape, window, strides, pads)
  x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=value)
  sh, sw = strides
  for i in range(window[0]):
    for j in range(window[1]):
      yield x[
        :,
        i : i + out_h * sh : sh,
        j : j + out_w * sw : sw,
      ]


def _stack_blocks(x: Array, sh: int, sw: int) -> Array:
  """Moves blocks of `sh` x `sw` pixels into the channel axis."""
  b, h, w, c = x.shape
  x = x.reshape(b, h // sh, sh, w // sw, sw, c)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // sh, w // sw, sh * sw * c)
