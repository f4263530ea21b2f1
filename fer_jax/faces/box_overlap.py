"""Boxes of faces, and which of several that overlap is kept."""

import numpy as np
from jaxtyping import Float, Int

# Of two boxes that overlap by more, the weaker one is dropped.
_MAX_OVERLAP = 0.7
_BLOCK = 128  # boxes compared at once, so that memory stays bounded

Boxes = Float[np.ndarray, "n 4"]  # left, top, right, bottom
Scores = Float[np.ndarray, "n"]
Landmarks = Float[np.ndarray, "n 5 2"]


def strongest(
  boxes: Boxes,
  scores: Scores,
  max_overlap: float = _MAX_OVERLAP,
  of_smaller: bool = False,
) -> Int[np.ndarray, "m"]:
  """Returns the boxes that no better one overlaps, best first.

  Args:
    boxes: the boxes.
    scores: the higher, the better; of equals the first is the better.
    max_overlap: how much two boxes may share, as a fraction of their union.
    of_smaller: as a fraction of the smaller one instead.
  """
  order = np.argsort(-scores, kind="stable")
  boxes, kept = boxes[order], np.ones(len(boxes), bool)
  for start in range(0, len(boxes), _BLOCK):
    rows = start + np.flatnonzero(kept[start : start + _BLOCK])
    shared = _overlap(boxes[rows], boxes[start:], of_smaller) > max_overlap
    for row, weaker in zip(rows, shared, strict=True):
      if kept[row]:
        kept[row + 1 :] &= ~weaker[row + 1 - start :]
  return order[kept]


def _overlap(
  boxes: Boxes, others: Boxes, of_smaller: bool
) -> Float[np.ndarray, "n m"]:
  """Returns the shared area of all pairs, as a fraction; see `strongest`."""
  low = np.maximum(boxes[:, None, :2], others[None, :, :2])
  high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
  sides = np.maximum(high - low, 0)
  shared = sides[..., 0] * sides[..., 1]
  areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)[:, None]
  other_areas = np.prod(others[:, 2:] - others[:, :2], axis=1)[None]
  if of_smaller:
    whole = np.minimum(areas, other_areas)
  else:
    whole = areas + other_areas - shared
  return shared / np.maximum(whole, 1e-12)
