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
    return np.rot90(pixels, round(self.raw.rotation / 90) % 4)
