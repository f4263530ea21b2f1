"""Folds by subject: no person is in two of them.

Images of one person are alike whatever they express, so that a network that
has seen the person in training is tested on what it knows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from fer_jax.errors import UserError, require

# Options of datasets that are split by subject, with their defaults.
FOLD_OPTIONS: dict[str, Any] = {"fold": 0, "num_folds": 10, "fold_seed": 0}


def check_fold_options(options: Mapping[str, Any]) -> None:
  """Checks `FOLD_OPTIONS`.

  Raises:
    UserError: one of them is out of its range.
  """
  for option, least, why in (
    ("num_folds", 3, " (test, validation and train)"),
    ("fold", 0, ""),
    ("fold_seed", 0, ""),
  ):
    value = options[option]
    ok = isinstance(value, int) and value >= least
    require(ok, f"dataset.{option}", value, f"be an integer >= {least}{why}")
  ok = options["fold"] < options["num_folds"]
  must = f"be less than num_folds={options['num_folds']}"
  require(ok, "dataset.fold", options["fold"], must)


def split_of_subjects(
  subjects: Sequence[str], labels: Sequence[int], options: Mapping[str, Any]
) -> dict[str, str]:
  """Returns the split of each subject.

  Fold `fold` is the test split, the next one (after the last, the first) is
  validation, the others are train.

  Args:
    subjects: who each example shows.
    labels: the class of each example.
    options: values of `FOLD_OPTIONS`.

  Raises:
    UserError: there are fewer subjects than folds.
  """
  num_folds, test = options["num_folds"], options["fold"]
  folds = subject_folds(subjects, labels, num_folds, options["fold_seed"])
  splits = {test: "test", (test + 1) % num_folds: "validation"}
  return {
    subject: splits.get(fold, "train")
    for subject, fold in zip(subjects, folds.tolist(), strict=True)
  }


def subject_folds(
  subjects: Sequence[str],
  labels: Sequence[int],
  num_folds: int,
  seed: int,
) -> Int[np.ndarray, " n"]:
  """Assigns subjects to folds, stratified by label as far as possible.

  The subjects whose labels are the most uneven are assigned first, each to the
  fold that keeps the examples of every class the most evenly spread; ties in
  the seed's order (scikit-learn's StratifiedGroupKFold). The same examples in
  another order get the same folds.

  Args:
    subjects: who each example shows, `n` of them.
    labels: the class of each example, `n` of them.
    num_folds: 2 or more.
    seed: draws the order of subjects.

  Returns:
    The fold of each example, 0 to `num_folds - 1`; none is empty.

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
      f"dataset.num_folds={num_folds} needs as many subjects, but there are"
      f" {len(names)}: lower it"
    )
  # Shuffled here, as versions of scikit-learn differ in how they shuffle, and
  # by `random`, whose values numpy keeps, unlike those of `permutation`.
  shuffled = (
    np.random.default_rng(seed).random(len(names)).argsort(kind="stable")
  )
  groups = shuffled[groups]
  # A class with fewer examples than folds cannot be in all of them, and the
  # library warns or fails; such classes are merged into one.
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
