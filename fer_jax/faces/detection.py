"""Faces in photographs: finding them, and cutting them out with level eyes.

Jiang's preprocessing (face alignment): detect, turn, crop, resize. Points are
(x, y) in pixels from the image's top left corner; pixel i spans i to i + 1.
Left and right are as seen in the picture, not the person's.

Finding faces needs the optional extra `faces` (see `mtcnn`); aligning does
not.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from fer_jax.errors import UserError
from fer_jax.faces.mtcnn import Mtcnn

# Where an aligned face has its eyes, as parts of width and height: at x 0.31
# and 0.69, y 0.385, the median of FER2013's own faces. Networks trained on it
# then see what they know: forehead to chin, little hair and background.
EYE_DISTANCE = 0.38
EYE_HEIGHT = 0.385

# An image is scaled for detection so that its longer side is at most
# _LONGEST, and its shorter one, as far as that allows, at least _SHORTEST;
# _BORDER of the shorter side is added all around, since a face that fills the
# image is found more often with something around it.
_LONGEST, _SHORTEST = 640, 96
_BORDER = 0.25

# Where no face is found upright, it is looked for turned by so many degrees to
# either side: the networks lose half of those that are tilted by 30.
_TILT = 30

# Eyes nearer to each other than this part of the box belong to a face seen
# from the side, of which eyes at their places would show the nose only.
_NARROWEST = 0.27

Point = tuple[float, float]


class Face(NamedTuple):
  """A face in an image, in pixels.

  Attributes:
    box: x, y, width, height; may reach over the image's edge.
    left_eye: the one at the left of the picture; None if not known.
    right_eye: the other one.
    score: how sure the detector is, 0..1.
  """

  box: tuple[float, float, float, float]
  left_eye: Point | None
  right_eye: Point | None
  score: float


class Detector:
  """Finds faces with their eyes: load once, use for many images.

  The same image gives the same faces; threads may share a detector.

  Args:
    min_face: height of the smallest faces to find, in pixels of the image
      scaled to a longer side of at most 640. Higher is faster.
    min_score: faces that the detector is less sure of are left out; it gives
      0.7 at least. On FER2013's narrow crops 0.8 finds 92 %.

  Raises:
    UserError: the extra `faces` is not installed.
  """

  def __init__(self, *, min_face: float = 20, min_score: float = 0.8):
    self._networks = Mtcnn()
    self._min_face = min_face
    self._min_score = min_score

  def __call__(self, image: UInt8[np.ndarray, "h w c"]) -> list[Face]:
    """Returns the faces in an image, the largest and surest first.

    Args:
      image: grey (c = 1) or colour (c = 3), upright.
    """
    scaled = _for_detection(image)
    found = self._find(scaled, 0)
    if not found:
      tilted = [self._find(scaled, degrees) for degrees in (-_TILT, _TILT)]
      found = max(tilted, key=lambda faces: max(map(_rank, faces), default=0))
    return sorted(found, key=_rank, reverse=True)

  def _find(self, scaled: "_Scaled", degrees: float) -> list[Face]:
    """Finds faces that stand upright in a picture turned anticlockwise."""
    turned = scaled.picture
    if degrees:
      smooth = Image.Resampling.BILINEAR
      turned = turned.rotate(degrees, smooth, expand=True)
    boxes, landmarks, scores = self._networks(
      np.asarray(turned), self._min_face
    )
    middles = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    points = np.concatenate([middles, landmarks[:, :2]], axis=1)
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    points = (points - np.array(turned.size) / 2) @ [[cos, sin], [-sin, cos]]
    points += np.array(scaled.picture.size) / 2
    points = (points - scaled.border) / scaled.scale
    sides = (boxes[:, 2:] - boxes[:, :2]) / scaled.scale
    return [
      Face((x - w / 2, y - h / 2, w, h), tuple(left), tuple(right), score)
      for ((x, y), left, right), (w, h), score in zip(
        points.tolist(), sides.tolist(), scores.tolist(), strict=True
      )
      if score >= self._min_score
    ]


def _rank(face: Face) -> float:
  """Returns how large and sure a face is."""
  return face.box[3] * face.score


class _Scaled(NamedTuple):
  """An image as the detector wants it: scaled, in a border of that width."""

  picture: Image.Image
  scale: float
  border: int


def _for_detection(image: UInt8[np.ndarray, "h w c"]) -> _Scaled:
  picture = _picture(image).convert("RGB")
  w, h = picture.size
  scale = min(max(1, _SHORTEST / min(h, w)), _LONGEST / max(h, w))
  if scale != 1:
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    picture = picture.resize(size, Image.Resampling.BILINEAR)
  border = int(_BORDER * min(picture.size))
  sides = (border, border)
  padded = np.pad(np.asarray(picture), (sides, sides, (0, 0)), mode="edge")
  return _Scaled(Image.fromarray(padded), scale, border)


def align(
  image: UInt8[np.ndarray, "h w c"],
  face: Face,
  size: int = 48,
  margin: float = 0.0,
) -> UInt8[np.ndarray, "size size c"]:
  """Cuts a face out, turned so that its eyes are level.

  With both eyes known, they come to lie at `EYE_HEIGHT` of the height,
  `EYE_DISTANCE` of the width apart, in the middle: a turn, a scale and a
  shift. In a face seen from the side they stay nearer to each other. Without
  eyes: a square around the middle of the box, as long as its longer side.
  What lies outside the image repeats its edge; shrinking is smoothed.

  Args:
    image: grey (c = 1) or colour (c = 3).
    face: a detected one, or made of other knowledge.
    size: height and width of the result in pixels.
    margin: how much more to show at each side, as a part of the size that it
      would show without.
  """
  x, y, w, h = face.box
  longer = max(w, h)
  centre, angle, side = (x + w / 2, y + h / 2), 0.0, longer
  if face.left_eye is not None and face.right_eye is not None:
    (left_x, left_y), (right_x, right_y) = face.left_eye, face.right_eye
    right, down = right_x - left_x, right_y - left_y
    angle = math.atan2(down, right)
    distance = max(math.hypot(right, down), _NARROWEST * longer)
    side = distance / EYE_DISTANCE
    # From between the eyes to the middle of the crop.
    drop = (0.5 - EYE_HEIGHT) * side
    centre = (
      (left_x + right_x) / 2 - drop * math.sin(angle),
      (left_y + right_y) / 2 + drop * math.cos(angle),
    )
  return _cut(image, centre, angle, side * (1 + 2 * margin), size)


def align_from_landmarks(
  image: UInt8[np.ndarray, "h w c"],
  points: Float[np.ndarray, "68 2"],
  size: int = 48,
  margin: float = 0.0,
) -> UInt8[np.ndarray, "size size c"]:
  """As `align`, by the 68 landmarks that come with CK+ and other sets.

  Args:
    image: grey (c = 1) or colour (c = 3).
    points: x, y; the eyes' outlines are rows 36 to 41 and 42 to 47.
    size: height and width of the result in pixels.
    margin: as for `align`.

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
  return align(image, face, size, margin)


def _cut(
  image: UInt8[np.ndarray, "h w c"],
  centre: Point,
  angle: float,
  side: float,
  size: int,
) -> UInt8[np.ndarray, "size size c"]:
  """Returns a square out of an image.

  Args:
    image: grey or colour.
    centre: of the square.
    angle: radians, by which its upper edge falls to the right.
    side: its length in the image's pixels.
    size: its length in the result's.
  """
  whole = _picture(image)
  side = max(side, 1e-3)  # A face of no size is one colour, not an error.
  # So many samples a pixel, averaged, that none of the image is passed over.
  samples = max(1, math.ceil(side / size))
  step = side / (size * samples)
  cos, sin = step * math.cos(angle), step * math.sin(angle)
  # The part of the image that is needed, with the edge repeated around it.
  reach = side * (abs(math.cos(angle)) + abs(math.sin(angle))) / 2 + 2
  left, top = (math.floor(middle - reach) for middle in centre)
  length = math.ceil(2 * reach) + 1
  w, h = whole.size
  rows = np.clip(np.arange(top, top + length), 0, h - 1)
  columns = np.clip(np.arange(left, left + length), 0, w - 1)
  part = _picture(image[rows[:, None], columns])
  half = size * samples / 2
  matrix = (
    cos,
    -sin,
    centre[0] - left - half * (cos - sin),
    sin,
    cos,
    centre[1] - top - half * (sin + cos),
  )
  cut = part.transform(
    (size * samples, size * samples),
    Image.Transform.AFFINE,
    matrix,
    Image.Resampling.BILINEAR,
  ).reduce(samples)
  return np.asarray(cut).reshape(size, size, image.shape[2])


def _picture(image: UInt8[np.ndarray, "h w c"]) -> Image.Image:
  if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
    raise UserError(
      f"an image of {image.dtype} {list(image.shape)} must be uint8 [h w 1] "
      "(grey) or [h w 3] (colour)"
    )
  return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
