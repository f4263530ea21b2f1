"""Detection of FER+ votes that are joined to FER2013 in another order.

The votes are joined by position, so that files sorted or shuffled by anyone
give every image the votes of another. FER2013's own labels tell: they agree
with the majority of the voters on about 60 % of the images, and on about 20 %
where the order is wrong.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from fer_jax.data.datasets import class_names

EXPECTED = 0.6  # agreement in the right order, of all with a common majority
_BLOCK = 500  # images compared at once, so that a shift in the middle shows
_FEWEST = 60  # images below which chance cannot be told apart


class Mismatch(NamedTuple):
  """A run of rows whose labels agree no better than chance.

  Attributes:
    start: first row, from 0.
    stop: row after the last one.
    agreement: fraction of equal labels.
    chance: fraction expected for unrelated labels.
  """

  start: int
  stop: int
  agreement: float
  chance: float


def majority_labels(votes: Int[np.ndarray, "n 10"]) -> Int[np.ndarray, " n"]:
  """Returns FER2013's number of the class with most votes; -1 without one.

  >>> majority_labels(np.array([[0, 9, 0, 0, 0, 0, 0, 0, 1, 0]])).tolist()
  [3]
  """
  labels = [
    class_names.label_of_folder(column)
    for column in class_names.FERPLUS_COLUMNS
  ]
  numbers = np.array([-1 if label is None else label for label in labels])
  clear = 2 * votes.max(axis=1) > votes.sum(axis=1)
  return np.where(clear, numbers[votes.argmax(axis=1)], -1)


def find_mismatch(
  labels: Int[np.ndarray, " n"], voted: Int[np.ndarray, " n"]
) -> Mismatch | None:
  """Returns the first rows whose labels look unrelated; None if there are none.

  Args:
    labels: FER2013's class numbers.
    voted: of the same rows, as `majority_labels` returns them; rows of -1 are
      not compared.
  """
  rows = np.flatnonzero(voted >= 0)
  if len(rows) < _FEWEST:
    return None
  for block in np.array_split(rows, max(1, len(rows) // _BLOCK)):
    first, second = labels[block], voted[block]
    chance = chance_agreement(first, second)
    agreement = float((first == second).mean())
    # Where almost all images are of one class, chance is as good as any order.
    if chance < EXPECTED - 0.1 and agreement < (chance + EXPECTED) / 2:
      return Mismatch(int(block[0]), int(block[-1]) + 1, agreement, chance)
  return None


def chance_agreement(
  first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]
) -> float:
  """Returns the fraction of equal labels if the two were unrelated."""
  size = len(class_names.FER2013_CLASSES)
  a, b = (np.bincount(x, minlength=size) / len(x) for x in (first, second))
  return float((a * b).sum())
