"""Frames of videos, upright."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8


class Frame(NamedTuple):
  """One frame of a video.

  Attributes:
    number: 0 for the first.
    time: seconds after the first.
    raw: as decoded; most frames are not needed as pixels.
    aspect: width of a stored pixel over its height.
  """

  number: int
  time: float
  raw: Any
  aspect: float = 1.0

  def pixels(self) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the frame in RGB, upright as a player shows it."""
    width = max(1, round(self.raw.width * self.aspect))
    pixels = self.raw.to_ndarray(format="rgb24", width=width)
    quarters = round(self.raw.rotation / 90)
    if _is_mirrored(self.raw):  # The rest of the matrix is a half turn more.
      pixels, quarters = pixels[:, ::-1], quarters + 2
    return np.rot90(pixels, quarters % 4)


def _is_mirrored(raw: Any) -> bool:
  """Returns whether a frame's display matrix flips it, besides turning it."""
  matrix = raw.side_data.get("DISPLAYMATRIX")
  if matrix is None:
    return False
  a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].astype(float)
  return bool(a * d < b * c)
