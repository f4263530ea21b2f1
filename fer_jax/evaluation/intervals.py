"""How far scores may be off by chance: bootstrap intervals.

The rows are drawn anew, with replacement, as many as there are, and scored
again, many times; an interval holds the middle 95 % of these scores (the
percentile method, Efron and Tibshirani 1993, "An Introduction to the
Bootstrap", section 13.3). It speaks of the choice of test images only: another
training with another seed differs too.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

LEVEL = 0.95

# Row numbers drawn at a time: 16 MB, whatever the number of rows.
_MAX_DRAWN = 1 << 21


@dataclasses.dataclass(frozen=True)
class Interval:
  """The middle 95 % of a score's resamples."""

  low: float
  high: float


def bootstrap(
  labels: Int[np.ndarray, " n"],
  predicted: Int[np.ndarray, " n"],
  losses: Float[np.ndarray, " n"],
  num_classes: int,
  *,
  num_resamples: int,
  seed: int,
) -> dict[str, Interval]:
  """The intervals of accuracy, balanced accuracy, macro F1 and loss.

  All four are of the same resamples. A class without rows in a resample is
  left out of its means, as in the scores themselves.

  Args:
    labels: true classes, 0 to k - 1.
    predicted: predicted classes, likewise.
    losses: of each row.
    num_classes: k.
    num_resamples: 1 or more.
    seed: of the resamples.

  Returns:
    `accuracy`, `balanced_accuracy`, `macro_f1` and `loss`.
  """
  cells = labels * num_classes + predicted
  drawn = [
    {
      **statistics(_confusions(cells[rows], num_classes)),
      "loss": losses[rows].mean(axis=1),
    }
    for rows in _resamples(len(labels), num_resamples, seed)
  ]
  tail = 50 * (1 - LEVEL)
  intervals = {}
  for name in drawn[0]:
    values = np.concatenate([part[name] for part in drawn])
    low, high = np.percentile(values, (tail, 100 - tail))
    intervals[name] = Interval(float(low), float(high))
  return intervals


def statistics(
  confusions: Int[np.ndarray, "b k k"],
) -> dict[str, Float[np.ndarray, " b"]]:
  """What many confusion matrices say at once.

  Args:
    confusions: counts; rows are true classes, columns predicted ones. None is
      empty.

  Returns:
    `accuracy`, `balanced_accuracy` and `macro_f1` of each; the last two are
    means over the classes with rows.

  >>> found = statistics(np.array([[[3, 1], [0, 4]], [[0, 0], [1, 3]]]))
  >>> found["accuracy"].tolist(), found["balanced_accuracy"].tolist()
  ([0.875, 0.75], [0.875, 0.75])
  """
  right = np.diagonal(confusions, axis1=1, axis2=2)
  true, called = confusions.sum(axis=2), confusions.sum(axis=1)
  # Without true rows nothing is right, so 0 / 1 stands in for 0 / 0 and adds
  # nothing to the sums.
  recall = right / np.maximum(true, 1)
  f1 = np.where(true > 0, 2 * right / np.maximum(true + called, 1), 0.0)
  num_present = (true > 0).sum(axis=1)
  return {
    "accuracy": right.sum(axis=1) / true.sum(axis=1),
    "balanced_accuracy": recall.sum(axis=1) / num_present,
    "macro_f1": f1.sum(axis=1) / num_present,
  }


def _resamples(
  num_rows: int, num_resamples: int, seed: int
) -> Iterator[Int[np.ndarray, "b n"]]:
  """Row numbers of some resamples at a time."""
  rng = np.random.default_rng(seed)
  at_once = max(1, _MAX_DRAWN // num_rows)
  for start in range(0, num_resamples, at_once):
    size = min(at_once, num_resamples - start)
    # `random`, whose numbers stay the same from one numpy to the next.
    yield (rng.random((size, num_rows)) * num_rows).astype(np.intp)


def _confusions(
  cells: Int[np.ndarray, "b n"], num_classes: int
) -> Int[np.ndarray, "b k k"]:
  """The confusion matrix of each resample, from its rows' cells."""
  size, num_cells = len(cells), num_classes**2
  offsets = num_cells * np.arange(size)[:, None]
  counts = np.bincount((cells + offsets).ravel(), minlength=size * num_cells)
  return counts.reshape(size, num_classes, num_classes)
