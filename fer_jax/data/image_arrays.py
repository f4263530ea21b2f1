"""Arrays of pixels: one or many images, of any usual type, as uint8."""

from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from jaxtyping import Num, UInt8
from PIL import Image

from fer_jax.errors import UserError

CHANNELS = (1, 3, 4)  # gray, RGB, RGBA
_ROWS = 512  # converted at a time, so that memory stays bounded
_ACCEPTED = (
  "arrays are [h w] or [h w 1|3|4], several images [n h w] or [n h w 1|3|4], of"
  " uint8, uint16 (0..65535) or floats (0..1)"
)


def eight_bits(array: Any) -> UInt8[np.ndarray, "h w c"]:
  """Returns an image's pixels as uint8, with its channels.

  Args:
    array: `[h w]` or `[h w 1|3|4]`; NumPy's, or what NumPy can view, as arrays
      of JAX and PyTorch.

  Raises:
    UserError: it has another shape or type, or floats outside 0..1.
  """
  pixels = _numpy(array)
  if pixels.ndim == 2:
    pixels = pixels[..., None]
  if pixels.ndim != 3 or pixels.shape[2] not in CHANNELS:
    raise _refused(array, "is no image")
  if not pixels.size:
    raise _refused(array, "is empty")
  if pixels.dtype == np.uint8:
    return pixels
  out = np.empty(pixels.shape, np.uint8)
  for start in range(0, len(pixels), _ROWS):
    rows = slice(start, start + _ROWS)
    out[rows] = _converted(pixels[rows], array)
  return out


def is_stack(array: Any) -> bool:
  """Returns whether an array holds several images, one if it could be both.

  Two columns are no images but two channels, which `eight_bits` refuses.
  """
  shape = tuple(getattr(array, "shape", ()))
  return len(shape) == 4 or (len(shape) == 3 and shape[2] not in (*CHANNELS, 2))


def gray_from_16_bits(image: Image.Image) -> Image.Image:
  """Returns a gray image of 16 bits with 8, the full range for the full range.

  One of 32 bits whose values fit 8 bits is returned as it is.

  Args:
    image: of one of Pillow's modes I.

  Raises:
    UserError: pixels have more than 16 bits.
  """
  if image.mode == "I":  # What `convert("I")` makes of 8 bits has 8 bits still.
    low, high = cast(tuple[int, int], image.getextrema())
    if low >= 0 and high <= 0xFF:
      return image.convert("L")
  out = np.empty((image.height, image.width), np.uint8)
  for start in range(0, image.height, _ROWS):
    box = (0, start, image.width, min(start + _ROWS, image.height))
    values = np.asarray(image.crop(box)).astype(np.int32)
    if values.min() < 0 or values.max() > 0xFFFF:
      raise UserError("pixels of more than 16 bits")
    out[start : start + _ROWS] = (values + 128) // 257
  return Image.fromarray(out)


def to_pillow(image: UInt8[np.ndarray, "h w c"]) -> Image.Image:
  """Returns a PIL image of the same pixels; c is 1, 3 or 4."""
  return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _numpy(array: Any) -> Num[np.ndarray, "..."]:
  if not hasattr(array, "__array__"):
    kind = type(array).__name__
    raise UserError(
      f"cannot read an image from a {kind}: give a path, bytes, an open file, a"
      " PIL image or an array"
    )
  try:
    return np.asarray(array)
  except Exception as e:  # such as a PyTorch tensor on a GPU
    raise _refused(array, f"cannot be converted: {e}") from e


def _converted(
  pixels: Num[np.ndarray, "h w c"], array: Any
) -> UInt8[np.ndarray, "h w c"]:
  if pixels.dtype == np.uint16:
    if pixels.shape[2] == 1:
      return ((pixels.astype(np.int32) + 128) // 257).astype(np.uint8)
    return (pixels >> 8).astype(np.uint8)  # as Pillow reads such files
  if jnp.issubdtype(pixels.dtype, jnp.floating):  # bfloat16, too
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN neither
      raise _refused(array, "has values outside 0..1")
    return np.rint(pixels.astype(np.float32) * 255).astype(np.uint8)
  raise _refused(array, "is no image")


def _refused(array: Any, why: str) -> UserError:
  shape, dtype = getattr(array, "shape", ()), getattr(array, "dtype", "?")
  return UserError(f"an array {dtype} {list(shape)} {why}: {_ACCEPTED}")
