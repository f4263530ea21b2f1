"""One reader for images, whatever they come in: uint8 arrays, gray or color.

A path, bytes, an open file, a PIL image and an array of the same picture give
the same pixels: turned upright where EXIF says so, 16 bits per channel reduced
to 8, transparent parts on white.
"""

import importlib
import io
import os
import stat
import struct
from typing import IO, Any, cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_jax.data import image_arrays
from fer_jax.data.pillow_warnings import pillow_warnings_hidden
from fer_jax.errors import UserError
from fer_jax.text_output import printable

# What may be in a file is decided by its content, of these formats only: some
# of Pillow's others start programs (EPS) or fetch files.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
SUFFIXES = frozenset(
  ".avif .bmp .gif .jfif .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff"
  " .webp".split()
)
HEIC_SUFFIXES = frozenset((".heic", ".heif", ".hif"))
HEIC_MISSING = "HEIC needs the package pillow-heif: pip install 'fer_jax[heic]'"

# Bounds on the decoded image, checked before decoding: phones have photos of
# 108 megapixels, which take 4 bytes per pixel in Pillow.
MAX_PIXELS = 2**27
MAX_BYTES = 2**29
_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}

# The tag of EXIF, and what makes an image of each orientation upright.
_ORIENTATION = 0x0112
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}

_STRIP = 1024  # rows that are copied at a time
_CHUNK = 2**20  # bytes that are read of a pipe at a time

# Brands of the box that HEIC files begin with (ISO/IEC 23008-12).
_HEIC_BRANDS = frozenset(
  (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
)

Source = (
  str | os.PathLike[str] | bytes | IO[bytes] | Image.Image | np.ndarray | Any
)


class UnreadableError(UserError):
  """An image that cannot be read; the message says in what way."""


class TooLargeError(UnreadableError):
  """An image of more pixels or bytes than are decoded."""


class UnknownFormatError(UnreadableError):
  """No image, or one of a format that is not read."""


def read(
  source: Source, *, color: bool = False, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "h w c"]:
  """Reads an image of any size and kind.

  Of several pictures in a file, the first.

  Args:
    source: a path, the content as bytes, a binary file or pipe open for
      reading, a PIL image, or an array `[h w]` or `[h w 1|3|4]` of uint8,
      uint16 (0..65535) or floats (0..1).
    color: three channels (RGB) instead of one (ITU-R 601-2 luma).
    max_pixels: images of more are not decoded.

  Raises:
    UnreadableError: it is no image, damaged, or larger than `max_pixels` or
      `MAX_BYTES`.
  """
  return _array(_load(source, color, max_pixels))


def read_square(
  source: Source, size: int, *, color: bool = False
) -> UInt8[np.ndarray, "size size c"]:
  """Reads an image as `read` does, and makes it a square.

  The largest centered square is cropped, so faces keep their shape and none
  gets borders that say how it was photographed, and resized (bilinear, with
  antialiasing). An image of that size already is left as it is.

  Args:
    source: as in `read`.
    size: height and width to resize to, in pixels.
    color: as in `read`.

  Raises:
    UnreadableError: as in `read`.
  """
  return _fit(_load(source, color), size)


def read_sized(
  source: Source, size: int, name: str
) -> UInt8[np.ndarray, "size size 1"]:
  """Reads a gray image of a release whose images have one size.

  Args:
    source: as in `read`.
    size: its height and width, in pixels.
    name: of the image, for messages.

  Raises:
    UserError: it cannot be read or has another size; the message names it.
  """
  try:
    image = read(source)
  except UnreadableError as e:
    raise UserError(f"{printable(name)}: not a readable image ({e})") from e
  height, width, _ = image.shape
  if (height, width) != (size, size):
    raise UserError(
      f"{printable(name)}: {width}x{height} pixels instead of {size}x{size}"
    )
  return image


def square(
  image: UInt8[np.ndarray, "h w c"], size: int
) -> UInt8[np.ndarray, "size size c"]:
  """Makes an image a square, as `read_square` does.

  Args:
    image: gray (c = 1) or color (c = 3).
    size: height and width to resize to, in pixels.
  """
  return _fit(image_arrays.to_pillow(image), size)


def reads_heic() -> bool:
  """Returns whether HEIC files can be read: pillow-heif is installed."""
  try:
    pillow_heif = importlib.import_module("pillow_heif")
  except ImportError:
    return False
  pillow_heif.register_heif_opener()
  return True


def _fit(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size c"]:
  return _array(
    ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
  )


def _load(
  source: Source, color: bool, max_pixels: int = MAX_PIXELS
) -> Image.Image:
  """Returns an image upright, of mode L or RGB."""
  mode = "RGB" if color else "L"
  try:
    with pillow_warnings_hidden():
      if isinstance(source, Image.Image):
        if source.format == "EPS":  # whose pixels Ghostscript would make
          raise UnknownFormatError("EPS is not read")
        return _converted(source, mode, max_pixels)
      if isinstance(source, str | os.PathLike):
        with _open_regular(source) as file:
          return _decoded(file, mode, max_pixels)
      if isinstance(source, bytes | bytearray | memoryview):
        return _decoded(io.BytesIO(source), mode, max_pixels)
      if hasattr(source, "read"):
        return _decoded(cast(IO[bytes], source), mode, max_pixels)
      pixels = image_arrays.eight_bits(source)
      return _converted(image_arrays.to_pillow(pixels), mode, max_pixels)
  except UnreadableError:
    raise
  except UserError as e:
    raise UnreadableError(str(e)) from e
  except Exception as e:
    # Readers of damaged files raise almost anything.
    why = " ".join(printable(e).split()) or type(e).__name__
    raise UnreadableError(why) from e


def _open_regular(path: str | os.PathLike[str]) -> IO[bytes]:
  """Opens a file that is no pipe, device or folder, without waiting for it."""
  try:
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
  except OSError as e:
    link = os.path.islink(path) and not os.path.exists(path)
    why = "a link to a file that does not exist" if link else e.strerror
    raise UnreadableError(why or str(e)) from e
  if not stat.S_ISREG(os.fstat(descriptor).st_mode):
    os.close(descriptor)
    raise UnreadableError("not a regular file")
  return os.fdopen(descriptor, "rb")


def _decoded(file: IO[bytes], mode: str, max_pixels: int) -> Image.Image:
  start = file.read(32)
  if not isinstance(start, bytes):
    raise UnreadableError("a file must be opened in binary mode")
  if getattr(file, "seekable", lambda: True)():
    file.seek(-len(start), os.SEEK_CUR)
  else:  # A pipe or a response of a server: Pillow goes back in files.
    file = _in_memory(start, file)
  formats: tuple[str, ...] = FORMATS
  if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
    # The brand mif1 is also used for AVIF.
    if b"avif" not in start and not reads_heic():
      raise UnknownFormatError(HEIC_MISSING)
    formats += ("HEIF",) if b"avif" not in start else ()
  try:
    with Image.open(file, formats=formats) as image:
      return _converted(image, mode, max_pixels)
  except UnidentifiedImageError as e:
    what = "empty" if not start else f"not an image ({', '.join(FORMATS)})"
    raise UnknownFormatError(what) from e
  except Image.DecompressionBombError as e:
    raise TooLargeError(_too_large(str(e), max_pixels)) from e


def _in_memory(start: bytes, rest: IO[bytes]) -> io.BytesIO:
  content = bytearray(start)
  while chunk := rest.read(_CHUNK):
    content += chunk
    if len(content) > MAX_BYTES:
      raise TooLargeError(f"more than {MAX_BYTES >> 20} MiB")
  return io.BytesIO(content)


def _converted(image: Image.Image, mode: str, max_pixels: int) -> Image.Image:
  _check_size(image, max_pixels)
  image.load()  # Pillow turns TIFF here.
  # A copy only where EXIF asks for a turn: images may be large.
  if (turn := _TURNS.get(_orientation(image))) is not None:
    image = image.transpose(turn)
  if image.mode.startswith("I"):  # 16 bits, in one of several modes
    image = image_arrays.gray_from_16_bits(image)
  elif image.mode == "F":
    raise UnreadableError("floating-point pixels, whose range is not known")
  elif image.has_transparency_data:
    visible = image.convert("RGBA")
    image = Image.new("RGBA", image.size, "white")
    image.alpha_composite(visible)
  return image if image.mode == mode else image.convert(mode)


def _orientation(image: Image.Image) -> int:
  try:
    return image.getexif().get(_ORIENTATION, 1)
  except (SyntaxError, ValueError, struct.error, OSError):  # damaged EXIF
    return 1


def _check_size(image: Image.Image, max_pixels: int) -> None:
  width, height = image.size
  if not width or not height:
    raise UnreadableError(f"{width} x {height} pixels")
  pixels = width * height
  size = pixels * _BYTES_PER_PIXEL.get(image.mode, 4)
  if pixels > max_pixels or size > MAX_BYTES:
    what = f"{width:,} x {height:,} pixels"
    raise TooLargeError(_too_large(what, max_pixels))


def _too_large(what: str, max_pixels: int) -> str:
  return (
    f"{what}: at most {max_pixels // 10**6} megapixels are read; scale it down"
  )


def _array(image: Image.Image) -> UInt8[np.ndarray, "h w c"]:
  # By strips: as a whole, Pillow would copy the pixels twice.
  out = np.empty((image.height, image.width, len(image.getbands())), np.uint8)
  for top in range(0, image.height, _STRIP):
    bottom = min(top + _STRIP, image.height)
    strip = np.asarray(image.crop((0, top, image.width, bottom)))
    out[top:bottom] = strip.reshape(bottom - top, image.width, -1)
  return out
