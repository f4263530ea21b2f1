"""An image at every scale, for detectors that look through windows.

Halved images are made once; every other scale, and every window, is resized
from the nearest larger one. Memory stays at 4/3 of the image's own.

MTCNN was trained on transposed images: everything here has columns before rows.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

_BILINEAR = Image.Resampling.BILINEAR  # antialiased where it shrinks


class ImagePyramid:
  """An image and its halves, quarters and so on, as they are needed.

  Args:
    image: RGB.
  """

  def __init__(self, image: UInt8[np.ndarray, "h w 3"]):
    self.height, self.width = image.shape[:2]
    transpose = Image.Transpose.TRANSPOSE
    self._halves = [Image.fromarray(image).transpose(transpose)]

  def scaled(self, width: int, height: int) -> UInt8[np.ndarray, "w h 3"]:
    """Returns the image resized, columns before rows."""
    scale = max(width / self.width, height / self.height)
    index, picture = self._nearest(scale)
    if picture.size != (height, width):
      # The halves are rounded up: the last pixel may lie outside the image.
      size = self.height / 2**index, self.width / 2**index
      picture = picture.resize((height, width), _BILINEAR, (0, 0, *size))
    return np.asarray(picture)

  def windows(
    self, boxes: Float[np.ndarray, "n 4"], side: int
  ) -> Float32[np.ndarray, "n side side 3"]:
    """Returns what boxes show, resized to squares, columns before rows.

    Outside the image its edge is repeated.

    Args:
      boxes: left, top, right, bottom in pixels of the image, each with an area.
      side: of the squares.
    """
    longest = np.max(boxes[:, 2:] - boxes[:, :2], axis=1)
    # One picture below the other: each would take longer to turn into bytes
    # than to resize.
    sheet = Image.new("RGB", (side, side * len(boxes)))
    pairs = zip(boxes, longest.tolist(), strict=True)
    for i, (box, length) in enumerate(pairs):
      index, picture = self._nearest(side / length)
      left, top, right, bottom = (box / 2**index).tolist()
      # Of the transposed image.
      box = top, left, bottom, right
      sheet.paste(_resized(picture, box, side), (0, side * i))
    return normalized(np.asarray(sheet).reshape(-1, side, side, 3))

  def _nearest(self, scale: float) -> tuple[int, Image.Image]:
    """Returns the most often halved image that is not below a scale."""
    index = 0
    while 2.0 ** -(index + 1) >= scale - 1e-9:
      index += 1
      if index == len(self._halves):
        last = self._halves[-1]
        if min(last.size) < 2:
          return index - 1, last
        self._halves.append(last.reduce(2))
    return index, self._halves[index]


def _resized(
  picture: Image.Image, box: tuple[float, float, float, float], side: int
) -> Image.Image:
  left, top, right, bottom = box
  if left < 0 or top < 0 or right > picture.width or bottom > picture.height:
    columns = np.arange(int(np.floor(left)), int(np.ceil(right)) + 1)
    rows = np.arange(int(np.floor(top)), int(np.ceil(bottom)) + 1)
    inside = picture.crop(
      (
        min(max(columns[0], 0), picture.width - 1),
        min(max(rows[0], 0), picture.height - 1),
        max(min(columns[-1], picture.width), 1),
        max(min(rows[-1], picture.height), 1),
      )
    )
    x = np.clip(columns - max(columns[0], 0), 0, inside.width - 1)
    y = np.clip(rows - max(rows[0], 0), 0, inside.height - 1)
    picture = Image.fromarray(np.asarray(inside)[y[:, None], x])
    left, right = left - columns[0], right - columns[0]
    top, bottom = top - rows[0], bottom - rows[0]
  return picture.resize((side, side), _BILINEAR, (left, top, right, bottom))


def normalized(
  pixels: UInt8[np.ndarray, "*shape"],
) -> Float32[np.ndarray, "*shape"]:
  """Returns pixels from about -1 to 1, as MTCNN takes them."""
  out = np.multiply(pixels, np.float32(1 / 128), dtype=np.float32)
  out -= np.float32(127.5 / 128)
  return out


def tiles(length: int, longest: int, overlap: int) -> Iterator[slice]:
  """Yields pieces of an axis, each an even number of pixels after the first.

  Args:
    length: of the axis.
    longest: a piece's length at most; even.
    overlap: pixels that neighbors share; even.

  >>> [(piece.start, piece.stop) for piece in tiles(30, 16, 10)]
  [(0, 16), (6, 22), (12, 28), (18, 30)]
  """
  start = 0
  while True:
    stop = min(start + longest, length)
    yield slice(start, stop)
    if stop == length:
      return
    start = stop - overlap
