"""Folds by subject: no person is in two of them.

Frames of one person are alike whatever they express, so a network that has
seen the person in training is tested on what it knows.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from fer_jax.errors import UserError


def subject_folds(
  subjects: Sequence[str],
  labels: Sequence[int],
  num_folds: int,
  seed: int,
) -> Int[np.ndarray, " n"]:
  """Deals subjects out to folds, stratified by label as well as it goes.

  The subjects whose labels are the most uneven are dealt first, each to the
  fold that keeps every class's rows the most evenly spread; equals in the
  seed's order (scikit-learn's StratifiedGroupKFold). The same rows in another
  order get the same folds.

  Args:
    subjects: who each row shows, `n` of them.
    labels: the class of each row, `n` of them.
    num_folds: 2 or more.
    seed: draws the order of subjects.

  Returns:
    Each row's fold, 0 to `num_folds - 1`; none is empty.

  Raises:
    UserError: there are fewer subjects than folds.

  >>> folds = subject_folds(["a", "a", "b", "c"], [0, 1, 0, 1], 2, seed=0)
  >>> bool(folds[0] == folds[1]), sorted(set(folds.tolist()))
  (True, [0, 1])
  """
  # Takes a second to import.
  from sklearn.model_selection import StratifiedGroupKFold

  names, groups = np.unique(np.asarray(subjects), return_inverse=True)
  if len(names) < num_folds:
    raise UserError(
      f"{num_folds} folds need as many subjects, but there are {len(names)}: "
      "lower --config.dataset.num_folds"
    )
  # Shuffled here, not there: versions differ in how they shuffle. And an order,
  # not `permutation`: the bytes of `random` are kept by numpy.
  shuffled = (
    np.random.default_rng(seed).random(len(names)).argsort(kind="stable")
  )
  groups = shuffled[groups]
  # A class with fewer rows than folds cannot be in all of them, and the library
  # warns of it or gives up; such classes are dealt as one, the rare.
  _, classes, counts = np.unique(
    np.asarray(labels), return_inverse=True, return_counts=True
  )
  classes = np.where(counts[classes] < num_folds, len(counts), classes)
  if np.count_nonzero(classes == len(counts)) < num_folds:
    classes[classes == len(counts)] = np.argmax(counts)
  folds = np.empty(len(groups), int)
  dealer = StratifiedGroupKFold(num_folds)
  for fold, (_, rows) in enumerate(dealer.split(classes, classes, groups)):
    folds[rows] = fold
  return folds
