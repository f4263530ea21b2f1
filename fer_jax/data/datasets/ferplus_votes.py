"""Targets from the votes of FER+.

Ten people voted on each image of FER2013, for one of eight expressions,
"unknown" or "NF" (no face). Barsoum et al. 2016, "Training Deep Networks for
Facial Expression Recognition with Crowd-Sourced Label Distribution",
https://arxiv.org/abs/1608.01041, define several targets. Details that the paper
leaves open (which images are dropped) follow the authors' published code;
`class_names.FERPLUS_COUNTS` holds the resulting numbers of images.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

NUM_COLUMNS = 10
NUM_EXPRESSIONS = 8
UNKNOWN = 8  # the column; NF is the one after

# Column -> fraction of the votes.
Distribution = Float32[np.ndarray, "10"]
Votes = Int[np.ndarray, "10"]


def without_outliers(votes: Votes) -> Votes:
  """Returns the votes without single ones: one of ten may be a mistake.

  >>> without_outliers(np.array([7, 2, 1, 0, 0, 0, 0, 0, 0, 0])).tolist()
  [7, 2, 0, 0, 0, 0, 0, 0, 0, 0]
  """
  return np.where(votes > 1, votes, 0)


def majority(votes: Votes) -> Distribution:
  """Returns the column with more than half of the votes, else unknown.

  >>> int(majority(np.array([4, 6, 0, 0, 0, 0, 0, 0, 0, 0])).argmax())
  1
  >>> int(majority(np.array([5, 5, 0, 0, 0, 0, 0, 0, 0, 0])).argmax())
  8
  """
  votes = without_outliers(votes)
  best = int(votes.argmax())
  return _only(best if 2 * votes[best] > votes.sum() else UNKNOWN)


def distribution(votes: Votes) -> Distribution:
  """Returns the distribution over the expressions that most people saw.

  Columns are taken in the order of their votes, equal ones together, until they
  have three quarters of all votes or are three. Unknown or NF ends that; it
  counts only if nothing was taken before. The image is unknown if the columns
  have half of the votes or less, or are more than three.

  >>> fractions = distribution(np.array([6, 3, 1, 0, 0, 0, 0, 0, 0, 0]))
  >>> [round(float(s), 2) for s in fractions[:3]]
  [0.67, 0.33, 0.0]
  """
  votes = without_outliers(votes)
  total = votes.sum()
  taken = np.zeros(NUM_COLUMNS)
  for level in sorted(set(votes[votes > 0]), reverse=True):
    if 4 * taken.sum() >= 3 * total or np.count_nonzero(taken) >= 3:
      break
    columns = np.flatnonzero(votes == level)
    taken[columns[columns < NUM_EXPRESSIONS]] = level
    if columns[-1] >= NUM_EXPRESSIONS:
      if not taken.any():
        taken[columns[0]] = level
      break
  if 2 * taken.sum() <= total or np.count_nonzero(taken) > 3:
    return _only(UNKNOWN)
  return (taken / taken.sum()).astype(np.float32)


def multi_target(votes: Votes) -> Distribution:
  """Returns the distribution over the columns with 30 % of the votes.

  Any of these columns is a right answer to the loss `multi_target`; accuracy is
  of the one with the most votes. The image is unknown if these have half of the
  votes or less, and it is unknown or NF alone if that has the most of them.

  >>> fractions = multi_target(np.array([3, 0, 5, 2, 0, 0, 0, 0, 0, 0]))
  >>> [round(float(s), 2) for s in fractions[:4]]
  [0.38, 0.0, 0.62, 0.0]
  """
  votes = without_outliers(votes)
  total = votes.sum()
  taken = np.where(10 * votes >= 3 * total, votes, 0)
  if 2 * taken.sum() <= total:
    return _only(UNKNOWN)
  best = int(taken.argmax())
  if best >= NUM_EXPRESSIONS:
    return _only(best)
  return (taken / taken.sum()).astype(np.float32)


MODES: dict[str, Callable[[Votes], Distribution]] = {
  "distribution": distribution,
  "majority": majority,
  "multi_target": multi_target,
}


def targets(
  votes: Int[np.ndarray, "n 10"], mode: str, num_classes: int
) -> tuple[
  Int[np.ndarray, " n"] | Float32[np.ndarray, "n k"], Bool[np.ndarray, " n"]
]:
  """Returns the targets of many images, and which of them to keep.

  Args:
    votes: votes of each image, for each column.
    mode: one of `MODES`.
    num_classes: 8 drops the images that are unknown or NF; 10 keeps all.

  Returns:
    Labels for "majority", else distributions over the classes; and whether to
    keep each image. The target of a dropped image is arbitrary.

  >>> rows = np.array([[0, 9, 0, 0, 0, 0, 0, 0, 1, 0], [0] * 9 + [10]])
  >>> labels, kept = targets(rows, "majority", 8)
  >>> labels[kept].tolist(), kept.tolist()
  ([1], [True, False])
  """
  kept = np.ones(len(votes), bool)
  fractions = np.zeros((len(votes), num_classes), np.float32)
  for i, row in enumerate(votes):
    all_columns = MODES[mode](row)
    if num_classes == NUM_COLUMNS:
      fractions[i] = all_columns
    elif (of_expressions := expressions_only(all_columns)) is not None:
      fractions[i] = of_expressions
    else:
      kept[i] = False
  return (fractions.argmax(axis=1) if mode == "majority" else fractions), kept


def expressions_only(fractions: Distribution) -> Float[np.ndarray, "8"] | None:
  """Returns the distribution over the eight expressions; None to drop it.

  An image is dropped if unknown or NF has the largest part; a smaller part is
  removed and the rest renormalized.
  """
  if fractions.argmax() >= NUM_EXPRESSIONS:
    return None
  expressions = fractions[:NUM_EXPRESSIONS]
  return expressions / expressions.sum()


def _only(column: int) -> Distribution:
  fractions = np.zeros(NUM_COLUMNS, np.float32)
  fractions[column] = 1
  return fractions
