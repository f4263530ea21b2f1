"""A face in an image, and the interface of what finds faces.

Points are (x, y) in pixels from the image's top left corner; pixel i spans i to
i + 1. Left and right are as seen in the picture, not the person's.
"""

from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import UInt8

Point = tuple[float, float]


class Face(NamedTuple):
  """A face in an image, in pixels.

  Attributes:
    box: x, y, width, height; may reach over the image's edge.
    left_eye: the one at the left of the picture; None if not known.
    right_eye: the other one.
    score: the detector's confidence, on its own scale, which is 0..1 for those
      of this package; None where it has none.
  """

  box: tuple[float, float, float, float]
  left_eye: Point | None = None
  right_eye: Point | None = None
  score: float | None = None


class Detector(Protocol):
  """Finds the faces in an image; any object with this method serves."""

  def detect(self, image: UInt8[np.ndarray, "h w 3"]) -> list[Face]:
    """Returns the faces in an image, the largest and surest first.

    The same image gives the same faces, and threads may share a detector.

    Args:
      image: RGB, upright, of any size.
    """
    ...
