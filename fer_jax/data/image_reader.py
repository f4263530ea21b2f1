"""Any image file as a uint8 array, grey or in colour."""

import os
import warnings
from typing import IO

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

# Ending -> what may be in the file is decided by its content, of these formats
# only: some of the library's others start programs (EPS) or fetch files.
SUFFIXES = frozenset(
  ".bmp .gif .jfif .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


class UnreadableError(Exception):
  """A file is no image, or a damaged one; the message says in what way."""


def read(
  file: str | os.PathLike[str] | IO[bytes], *, color: bool = False
) -> UInt8[np.ndarray, "h w c"]:
  """Reads an image of any size and kind.

  Turned upright where EXIF says how; 16 bits a pixel become 8, the full range
  for the full range; what is transparent becomes white; of several pictures
  in a file, the first.

  Args:
    file: its path, or the file itself, open.
    color: three channels, red first, instead of grey (ITU-R 601-2 luma).

  Raises:
    UnreadableError: it is no image, damaged, or larger than Pillow's limit.
  """
  return _array(_read(file, color))


def read_square(
  file: str | os.PathLike[str] | IO[bytes], size: int, *, color: bool = False
) -> UInt8[np.ndarray, "size size c"]:
  """Reads an image as `read` does, and makes it a square.

  The square in its middle is cut out, so faces keep their shape and none gets
  borders that say how it was photographed; then it is resized, smoothed where
  it shrinks (bilinear over as many pixels as fall on one). An image of that
  size already is left as it is.

  Args:
    file: its path, or the file itself, open.
    size: height and width to resize to, in pixels.
    color: as in `read`.

  Raises:
    UnreadableError: as in `read`.
  """
  return _fit(_read(file, color), size)


def square(
  image: UInt8[np.ndarray, "h w c"], size: int
) -> UInt8[np.ndarray, "size size c"]:
  """Makes an image a square, as `read_square` does.

  Args:
    image: grey (c = 1) or colour (c = 3).
    size: height and width to resize to, in pixels.
  """
  return _fit(
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image), size
  )


def _fit(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size c"]:
  return _array(
    ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
  )


def _read(file: str | os.PathLike[str] | IO[bytes], color: bool) -> Image.Image:
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # of odd metadata, in a line each
      with Image.open(file, formats=_FORMATS) as image:
        upright = ImageOps.exif_transpose(image)
        return _eight_bits(upright).convert("RGB" if color else "L")
  except Exception as e:
    # Readers of damaged files raise almost anything.
    raise UnreadableError(" ".join(str(e).split()) or type(e).__name__) from e


def _eight_bits(image: Image.Image) -> Image.Image:
  if image.mode == "F":
    raise ValueError("floating-point pixels, whose range is not known")
  if image.mode.startswith("I"):  # 16 bits, in one of several modes
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
      raise ValueError("pixels of more than 16 bits")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
  if image.has_transparency_data:
    visible = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, visible)
  return image


def _array(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
  array = np.asarray(image, np.uint8)
  return array if array.ndim == 3 else array[..., None]
