"""Bootstrap confidence intervals of scores.

The examples are resampled with replacement many times, and each resample is
scored; the interval spans the middle 95 % of these scores (the percentile
method, Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section
13.3). It accounts for the choice of test images only, not for the variation
between training runs with different seeds.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from fer_jax.evaluation.confusion import scores_by_class

LEVEL = 0.95

# Indices drawn at a time: 16 MB, for any number of examples.
_MAX_DRAWN = 1 << 21


@dataclasses.dataclass(frozen=True)
class Interval:
  """Bounds of the middle 95 % of a score over the resamples."""

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
  """Computes intervals of accuracy, balanced accuracy, macro F1 and loss.

  All four use the same resamples. A class without examples in a resample is
  not part of its means, as in the scores themselves.

  Args:
    labels: true classes, 0 to k - 1.
    predicted: predicted classes, 0 to k - 1.
    losses: loss of each example.
    num_classes: k.
    num_resamples: at least 1.
    seed: seed of the resamples.

  Returns:
    `accuracy`, `balanced_accuracy`, `macro_f1` and `loss`.
  """
  cells = labels * num_classes + predicted
  drawn = [
    {
      **statistics(_confusions(cells[indices], num_classes)),
      "loss": losses[indices].mean(axis=1),
    }
    for indices in _resamples(len(labels), num_resamples, seed)
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
  """Computes the scores of many confusion matrices at once.

  Args:
    confusions: counts; rows are true classes, columns predicted classes. Each
      matrix has at least one example.

  Returns:
    `accuracy`, `balanced_accuracy` and `macro_f1` of each matrix; the last two
    are means over the classes that have examples.

  >>> found = statistics(np.array([[[3, 1], [0, 4]], [[0, 0], [1, 3]]]))
  >>> found["accuracy"].tolist(), found["balanced_accuracy"].tolist()
  ([0.875, 0.75], [0.875, 0.75])
  """
  support = confusions.sum(axis=2)
  num_present = (support > 0).sum(axis=1)
  right = np.trace(confusions, axis1=1, axis2=2)
  # Those of a class without examples are 0, which adds nothing to the sums.
  by_class = scores_by_class(confusions)
  return {
    "accuracy": right / support.sum(axis=1),
    "balanced_accuracy": by_class["recall"].sum(axis=1) / num_present,
    "macro_f1": by_class["f1"].sum(axis=1) / num_present,
  }


def _resamples(
  num_examples: int, num_resamples: int, seed: int
) -> Iterator[Int[np.ndarray, "b n"]]:
  """Yields the indices of several resamples at a time."""
  rng = np.random.default_rng(seed)
  at_once = max(1, _MAX_DRAWN // num_examples)
  for start in range(0, num_resamples, at_once):
    size = min(at_once, num_resamples - start)
    # `random`, whose numbers are the same in all versions of NumPy.
    yield (rng.random((size, num_examples)) * num_examples).astype(np.intp)


def _confusions(
  cells: Int[np.ndarray, "b n"], num_classes: int
) -> Int[np.ndarray, "b k k"]:
  """Returns the confusion matrix of each resample, from its examples' cells."""
  size, num_cells = len(cells), num_classes**2
  offsets = num_cells * np.arange(size)[:, None]
  counts = np.bincount((cells + offsets).ravel(), minlength=size * num_cells)
  return counts.reshape(size, num_classes, num_classes)
