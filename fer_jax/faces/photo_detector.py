"""Finds faces in photos of any size with a detector's networks."""

import math
from numbers import Real
from typing import Protocol

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fer_jax.errors import UserError, require
from fer_jax.faces.box_overlap import Boxes, Landmarks, Scores
from fer_jax.faces.face import Face

# Images are enlarged until their shorter side has so many pixels: crops of 48
# pixels, as FER2013's, are found more often.
_SHORTEST = 96

# Where no face is found upright, the image, shrunk to that longer side, is
# searched again rotated by so many degrees to either side: the networks lose
# half of the faces that are tilted by 30.
_TILT, _TILTED_SIZE = 30, 640

# Below so many pixels, what looks like a face is often none (buttons, badges):
# some networks may miss the score of 1 by half as much only.
_SMALL = 40


class Networks(Protocol):
  """What computes faces: `mtcnn.Mtcnn` or `centerface.CenterFace`.

  Attributes:
    min_score: that most boxes without a face do not reach.
    strict_if_small: whether small faces may miss the score of 1 by half as
      much only.
  """

  min_score: float
  strict_if_small: bool

  def __call__(
    self, image: UInt8[np.ndarray, "h w 3"], min_face: float
  ) -> tuple[Boxes, Landmarks, Scores]:
    """Returns the faces that stand upright in an image."""
    ...


class PhotoDetector:
  """Finds faces of `min_face` pixels and more, with their eyes.

  Args:
    networks: of the detector; threads may share them.
    min_face: height of the smallest faces to find, in pixels of the image. The
      search takes a fourth of the time with twice the height.
    detect_size: the longer side, in pixels, that larger images are shrunk to
      before the search; 0 searches them at full size. Faces that are smaller
      than `min_face` then are lost.
    min_score: faces with a lower score are left out; None is the networks'
      own. With MTCNN all have 0.7 at least, and faces of less than 40 pixels
      may miss 1 by half as much: 0.8 for large and 0.9 for small ones.

  Raises:
    UserError: an option is out of its range.
  """

  def __init__(
    self,
    networks: Networks,
    *,
    min_face: float = 24,
    detect_size: int = 0,
    min_score: float | None = None,
  ):
    if min_score is None:
      min_score = networks.min_score
    for name, value in (
      ("min_face", min_face),
      ("detect_size", detect_size),
      ("min_score", min_score),
    ):
      require(isinstance(value, Real), name, repr(value), "be a number")
    if not 12 <= min_face < math.inf:
      raise UserError(f"min_face={min_face} must be at least 12 pixels")
    if detect_size and not 48 <= detect_size < math.inf:
      raise UserError(
        f"detect_size={detect_size} must be at least 48 pixels, or 0"
      )
    if not 0 <= min_score < 1:
      raise UserError(f"min_score={min_score} must be at least 0 and below 1")
    self._networks = networks
    self._min_face = min_face
    self._detect_size = detect_size
    self._min_score = min_score

  def detect(self, image: UInt8[np.ndarray, "h w c"]) -> list[Face]:
    """Returns the faces in an image, the largest and surest first.

    Args:
      image: RGB (c = 3), or gray (c = 1), where fewer are found; upright.
    """
    if image.dtype != np.uint8 or image.shape[2:] not in ((1,), (3,)):
      raise UserError(
        f"an image of {image.dtype} {list(image.shape)} must be uint8 [h w 3]"
      )
    if image.shape[2] == 1:
      image = np.repeat(image, 3, axis=2)
    found = self._search(image, self._detect_size, 0)
    if not found:
      size = min(self._detect_size or _TILTED_SIZE, _TILTED_SIZE)
      tilted = [self._search(image, size, angle) for angle in (-_TILT, _TILT)]
      found = max(tilted, key=lambda faces: max(map(_rank, faces), default=0))
    return sorted(found, key=_rank, reverse=True)

  def _search(
    self, image: UInt8[np.ndarray, "h w 3"], longest: int, degrees: float
  ) -> list[Face]:
    """Finds faces that stand upright in an image rotated anticlockwise.

    Args:
      image: RGB.
      longest: the longer side to shrink to; 0 for as it is.
      degrees: by which to rotate.
    """
    height, width = image.shape[:2]
    scale = max(1.0, _SHORTEST / min(height, width))
    # Ribbons of a few pixels' height are not enlarged beyond reason.
    scale = min(scale, max(1.0, _TILTED_SIZE / max(height, width)))
    if longest:
      scale = min(scale, longest / max(height, width))
    searched = image
    if scale != 1 or degrees:
      searched = _resized_and_rotated(image, scale, degrees)
    boxes, landmarks, scores = self._networks(searched, self._min_face)
    middles = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    points = np.concatenate([middles, landmarks[:, :2]], axis=1)
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    points -= np.array(searched.shape[1::-1]) / 2
    points = points @ [[cos, sin], [-sin, cos]] / scale
    points += np.array([width, height]) / 2
    sides = (boxes[:, 2:] - boxes[:, :2]) / scale
    return [
      Face((x - w / 2, y - h / 2, w, h), tuple(left), tuple(right), score)
      for ((x, y), left, right), (w, h), score in zip(
        points.tolist(), sides.tolist(), scores.tolist(), strict=True
      )
      if score >= self._score_needed(h * scale)
    ]

  def _score_needed(self, height: float) -> float:
    if height >= _SMALL or not self._networks.strict_if_small:
      return self._min_score
    return (1 + self._min_score) / 2


def _rank(face: Face) -> float:
  """Returns a number that is higher for larger and surer faces."""
  return face.box[3] * (face.score or 0)


def _resized_and_rotated(
  image: UInt8[np.ndarray, "h w 3"], scale: float, degrees: float
) -> UInt8[np.ndarray, "H W 3"]:
  smooth = Image.Resampling.BILINEAR
  height, width = image.shape[:2]
  size = (max(1, round(width * scale)), max(1, round(height * scale)))
  picture = Image.fromarray(image).resize(size, smooth)
  if degrees:
    picture = picture.rotate(degrees, smooth, expand=True)
  return np.asarray(picture)
