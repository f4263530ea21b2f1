"""The canvas of a drawn face: coordinates, shapes and blending.

Every shape is a signed distance on the pixel grid with a soft edge, so that any
side length gives smooth outlines without supersampling. A face has two frames:
the head's (`x`, `y`: rotated, scaled and translated into the image) and the
surface's (`u`, `v`: also shifted by yaw and pitch, most where the face is
nearest), in which the center of the face is (0, 0), the chin at v = 1 and the
side of the head at about u = 0.75.

Pixels are computed with `+ - * /`, `sqrt` and comparisons only. IEEE 754 rounds
these in one way, so that all machines draw the same bytes; `exp` and `sin`
differ between libraries.
"""

from types import SimpleNamespace

import numpy as np
from jaxtyping import Float32

Pixels = Float32[np.ndarray, "n side side"]
Values = Pixels | float


class Canvas:
  """The image so far and its coordinates, all `[n side side]` float32."""

  def __init__(self, p: SimpleNamespace, side: int):
    grid = (np.arange(side, dtype=np.float32) + 0.5) * (2 / side) - 1
    self.i, self.j = grid[None, :, None], grid[None, None, :]
    # A turn by tan(roll / 2): its cosine and sine without trigonometry.
    square = p.roll * p.roll
    cos, sin = (1 - square) / (1 + square), 2 * p.roll / (1 + square)
    right, down = self.j - p.left, self.i - p.top
    self.x = (right * cos + down * sin) / p.size
    self.y = (down * cos - right * sin) / p.size
    xx, yy = self.x * self.x, self.y * self.y
    self.u = self.x - p.yaw * (1 - 0.9 * xx - 0.3 * yy)
    self.v = self.y - p.pitch * (1 - 0.5 * xx - 0.6 * yy)
    self.au = np.abs(self.u)  # Both halves of a face in one stroke.
    self.right = np.sign(self.u)
    self.pixel = (2 / side) / p.size
    self.image = np.zeros(self.x.shape, np.float32)

  def cover(self, distance: Pixels, softness: float = 0.0) -> Pixels:
    """Returns the fraction of a pixel that is inside (distance < 0), 0..1."""
    return np.clip(0.5 - distance / (self.pixel + softness), 0, 1)

  def lay(self, shade: Values, cover: Pixels) -> None:
    """Blends a shade into the image, with `cover` as its opacity."""
    self.image += (shade - self.image) * cover

  def darken(self, amount: Pixels) -> None:
    """Darkens the image by a fraction."""
    self.image *= 1 - np.clip(amount, 0, 0.9)


def hill(*axes: Pixels) -> Pixels:
  """Returns a smooth hill: 1 where all axes are 0, 0 beyond radius 1."""
  rest = 1 - sum(axis * axis for axis in axes)
  rest = np.maximum(rest, 0)
  return rest * rest


def ellipse(x: Pixels, y: Pixels, rx: Values, ry: Values) -> Pixels:
  """Returns the approximate distance to an ellipse, exact on its outline."""
  r = np.sqrt((x / rx) * (x / rx) + (y / ry) * (y / ry))
  return (r - 1) * np.minimum(rx, ry, dtype=np.float32)


def blob(
  x: Pixels, y: Pixels, rx: Values, ry: Values, square: Values
) -> Pixels:
  """Returns the distance to an ellipse that is a rectangle at `square` 1."""
  a, b = (x / rx) * (x / rx), (y / ry) * (y / ry)
  r2, r4 = np.sqrt(a + b), np.sqrt(np.sqrt(a * a + b * b))
  r = r2 + (r4 - r2) * square
  return (r - 1) * np.minimum(rx, ry, dtype=np.float32)


def capsule(x, y, x0, y0, x1, y1, radius) -> Pixels:
  """Returns the distance to a thick line with round ends."""
  dx, dy = x1 - x0, y1 - y0
  t = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
  ex, ey = x - x0 - t * dx, y - y0 - t * dy
  return np.sqrt(ex * ex + ey * ey) - radius


def wave(x: Pixels) -> Pixels:
  """Returns a smooth wave of period 1, between -1 and 1."""
  t = 2 * np.abs(x - np.floor(x) - 0.5)  # 0..1..0
  return (t * t * (3 - 2 * t)) * 2 - 1
