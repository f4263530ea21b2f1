"""Aligned crops: cuts faces out of images with level eyes.

Jiang's preprocessing (face alignment): detect, rotate, crop, resize. Points are
(x, y) in pixels from the image's top left corner; pixel i spans i to i + 1.
"""

import math

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from fer_jax.data.image_arrays import to_pillow
from fer_jax.errors import UserError
from fer_jax.faces.face import Face, Point

# Where an aligned face has its eyes, as fractions of width and height: at x
# 0.31 and 0.69, y 0.385, the median of FER2013's own faces. Networks trained on
# it then see what they know: forehead to chin, little hair and background.
EYE_DISTANCE = 0.38
EYE_HEIGHT = 0.385

# Limits of the square that is cut out: in sides of the image, beyond which it
# shows nothing but the repeated edge, and in pixels.
_MOST_SIDES, _MOST_PIXELS = 8, 2**13

# Eyes nearer to each other than this fraction of the box belong to a face seen
# from the side, of which eyes at their places would show the nose only.
_NARROWEST = 0.27


def align(
  image: UInt8[np.ndarray, "h w c"],
  face: Face,
  size: int = 48,
  margin: float = 0.0,
) -> UInt8[np.ndarray, "size size c"]:
  """Crops a face, rotated so that its eyes are level.

  With both eyes known, they come to lie at `EYE_HEIGHT` of the height,
  `EYE_DISTANCE` of the width apart, in the middle: a rotation, a scale and a
  shift. In a face seen from the side they stay nearer to each other. Without
  eyes: a square around the middle of the box, as long as its longer side.
  Outside the image its edge is repeated; shrinking is antialiased.

  Args:
    image: gray (c = 1) or RGB (c = 3).
    face: a detected one, or one from another source.
    size: height and width of the result in pixels.
    margin: how much more to show at each side, as a fraction of the size that
      is shown without it.
  """
  x, y, w, h = face.box
  longer = max(w, h)
  center, angle, side = (x + w / 2, y + h / 2), 0.0, longer
  if face.left_eye is not None and face.right_eye is not None:
    (left_x, left_y), (right_x, right_y) = face.left_eye, face.right_eye
    right, down = right_x - left_x, right_y - left_y
    angle = math.atan2(down, right)
    distance = max(math.hypot(right, down), _NARROWEST * longer)
    side = distance / EYE_DISTANCE
    # From between the eyes to the middle of the crop.
    drop = (0.5 - EYE_HEIGHT) * side
    center = (
      (left_x + right_x) / 2 - drop * math.sin(angle),
      (left_y + right_y) / 2 + drop * math.cos(angle),
    )
  return _cut(image, center, angle, side * (1 + 2 * margin), size)


def align_from_landmarks(
  image: UInt8[np.ndarray, "h w c"],
  points: Float[np.ndarray, "68 2"],
  size: int = 48,
) -> UInt8[np.ndarray, "size size c"]:
  """As `align`, by the 68 landmarks that come with CK+ and other datasets.

  Args:
    image: gray (c = 1) or RGB (c = 3).
    points: x, y; the eyes' outlines are points 36 to 41 and 42 to 47.
    size: height and width of the result in pixels.

  Raises:
    UserError: the points are not 68 finite pairs.
  """
  points = np.asarray(points, np.float64)
  if points.shape != (68, 2) or not np.isfinite(points).all():
    raise UserError(
      f"landmarks of shape {points.shape} must be 68 rows of finite x, y"
    )
  x, y = points.min(axis=0).tolist()
  w, h = np.ptp(points, axis=0).tolist()
  left, right = (points[i : i + 6].mean(axis=0).tolist() for i in (36, 42))
  face = Face((x, y, w, h), tuple(left), tuple(right), 1.0)
  return align(image, face, size)


def _cut(
  image: UInt8[np.ndarray, "h w c"],
  center: Point,
  angle: float,
  side: float,
  size: int,
) -> UInt8[np.ndarray, "size size c"]:
  """Returns a rotated square of an image, resized.

  Args:
    image: gray or RGB.
    center: of the square.
    angle: radians, by which its upper edge falls to the right.
    side: length in the image's pixels.
    size: length in pixels of the result.
  """
  _check(image)
  # A face of no size is one color, not an error.
  side = min(max(side, 1e-3), _MOST_SIDES * max(image.shape[:2]))
  if side > _MOST_PIXELS:
    factor = math.ceil(side / _MOST_PIXELS)
    small = np.asarray(to_pillow(image).reduce(factor))
    image = small.reshape(*small.shape[:2], image.shape[2])
    center = center[0] / factor, center[1] / factor
    side /= factor
  # As many samples per pixel, averaged, as reach every pixel of the image.
  samples = max(1, math.ceil(side / size))
  step = side / (size * samples)
  cos, sin = step * math.cos(angle), step * math.sin(angle)
  # The part of the image that is needed, with the edge repeated around it.
  reach = side * (abs(math.cos(angle)) + abs(math.sin(angle))) / 2 + 2
  left, top = (math.floor(middle - reach) for middle in center)
  length = math.ceil(2 * reach) + 1
  h, w = image.shape[:2]
  rows = np.clip(np.arange(top, top + length), 0, h - 1)
  columns = np.clip(np.arange(left, left + length), 0, w - 1)
  part = to_pillow(image[rows[:, None], columns])
  half = size * samples / 2
  matrix = (
    cos,
    -sin,
    center[0] - left - half * (cos - sin),
    sin,
    cos,
    center[1] - top - half * (sin + cos),
  )
  cut = part.transform(
    (size * samples, size * samples),
    Image.Transform.AFFINE,
    matrix,
    Image.Resampling.BILINEAR,
  ).reduce(samples)
  return np.asarray(cut).reshape(size, size, image.shape[2])


def _check(image: UInt8[np.ndarray, "h w c"]) -> None:
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
    raise UserError(
      f"an image of {image.dtype} {list(image.shape)} must be uint8 [h w 1] "
      "(gray) or [h w 3] (color)"
    )
