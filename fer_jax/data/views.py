"""Other splits of the same prepared rows: subsets, holdouts, no duplicates.

A view picks rows and renumbers classes; nothing is prepared again. The order is
fixed: classes are selected first, then the holdouts cut from what is left of
the training rows, then duplicates dropped.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from fer_jax.data import preparation_progress
from fer_jax.data.splits import Dataset, Split
from fer_jax.errors import UserError, choose, require

# Option -> default, of every data set beside its own options.
OPTIONS: dict[str, Any] = {
  "classes": "",
  "holdout_validation": 0.0,
  "holdout_test": 0.0,
  "holdout_seed": 0,
  "drop_duplicates": False,
}
_EVALUATION = ("validation", "test")
_CHUNK = 1024


def apply(dataset: Dataset, **options: Any) -> Dataset:
  """Makes the view that the options ask for.

  Args:
    dataset: as prepared.
    **options: some of `OPTIONS`:
      `classes`: names, parted by commas, that are kept and numbered in this
      order; "" keeps all. `holdout_validation`, `holdout_test`: shares of the
      training rows, 0 to 1, that become that split, instead of the one there
      is, if there is one. `holdout_seed`: draws them. `drop_duplicates`: leaves
      out training rows whose image also stands in an evaluation split.

  Raises:
    UserError: an option is out of its range, or names a class there is not.
  """
  options = {**OPTIONS, **options}
  if options["classes"]:
    names = [name.strip() for name in options["classes"].split(",")]
    dataset = select_classes(dataset, names)
  fractions = {split: options[f"holdout_{split}"] for split in _EVALUATION}
  for split, fraction in fractions.items():
    must = "be a share of the training rows, 0 to less than 1"
    require(0 <= fraction < 1, f"dataset.holdout_{split}", fraction, must)
  total = sum(fractions.values())
  if not total < 1:
    raise UserError(
      f"--config.dataset.holdout_validation and holdout_test are {total:g} of"
      " the training rows together, which leaves none: lower them"
    )
  if total:
    dataset = hold_out(dataset, fractions, options["holdout_seed"])
  if options["drop_duplicates"]:
    dataset = drop_duplicates(dataset)
  return dataset


def select_classes(dataset: Dataset, names: list[str]) -> Dataset:
  """Keeps the rows of some classes, and numbers these anew.

  Of a distribution, the row is kept if its most probable class is; what the
  other classes had is shared out in proportion.

  Args:
    dataset: any.
    names: the classes, in their new order.

  Raises:
    UserError: a name is unknown or stands twice, or there are fewer than two.
  """
  for name in names:
    choose(f"class of data set {dataset.name}", name, dataset.class_names)
  if len(set(names)) != len(names) or len(names) < 2:
    raise UserError(
      f"--config.dataset.classes={','.join(names)}: give two or more different"
      f" classes of {', '.join(dataset.class_names)}"
    )
  kept = np.array([dataset.class_names.index(name) for name in names])
  splits = {}
  for split in dataset.splits.values():
    places = np.flatnonzero(np.isin(labels_of(split.targets()), kept))
    if places.size:
      splits[split.name] = split.pick(places, kept)
  return dataset.replace(class_names=tuple(names), splits=splits)


def hold_out(
  dataset: Dataset, fractions: dict[str, float], seed: int
) -> Dataset:
  """Cuts evaluation splits from the training rows, class by class.

  Every class gives the same share of its rows, to the nearest row, so the
  splits have the classes in the same proportions (stratified).

  Args:
    dataset: any with a split `train`.
    fractions: split -> share of the training rows.
    seed: draws the rows.

  Raises:
    UserError: a share is too small to hold a row.
  """
  train = dataset.split("train")
  labels = labels_of(train.targets())
  rng = np.random.default_rng(seed)
  held: dict[str, list[Int[np.ndarray, " n"]]] = {s: [] for s in fractions}
  rest = []
  for label in range(dataset.num_classes):
    rows = rng.permutation(np.flatnonzero(labels == label))
    start = 0
    for split, fraction in fractions.items():
      end = start + round(fraction * len(rows))
      held[split].append(rows[start:end])
      start = end
    rest.append(rows[start:])
  splits = dict(dataset.splits)
  for split, parts in held.items():
    if not fractions[split]:
      continue
    places = np.sort(np.concatenate(parts))
    if not places.size:
      raise UserError(
        f"--config.dataset.holdout_{split}={fractions[split]} of"
        f" {len(train)} training rows is no row of any class: raise it"
      )
    splits[split] = train.pick(places, name=split)
  splits["train"] = train.pick(np.sort(np.concatenate(rest)))
  return dataset.replace(splits=splits)


def drop_duplicates(dataset: Dataset) -> Dataset:
  """Leaves out training rows whose image also stands in an evaluation split.

  Images are the same where every byte is.
  """
  held = {
    digest
    for name in _EVALUATION
    if name in dataset.splits
    for digest in digests(dataset.splits[name])
  }
  train = dataset.split("train")
  unique: Bool[np.ndarray, " n"] = np.array(
    [digest not in held for digest in digests(train)]
  )
  dropped = len(train) - int(unique.sum())
  preparation_progress.say(
    f"{dataset.name}: left out {dropped:,} of {len(train):,} training rows"
    " whose image also stands in validation or test"
  )
  splits = {**dataset.splits, "train": train.pick(np.flatnonzero(unique))}
  return dataset.replace(splits=splits)


def digests(split: Split) -> Iterator[bytes]:
  """Yields a digest of every image of a split, in its order."""
  for start in range(0, len(split), _CHUNK):
    stop = min(start + _CHUNK, len(split))
    for image in split.read(np.arange(start, stop))["image"]:
      yield hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def labels_of(
  targets: Int[np.ndarray, " n"] | Float[np.ndarray, "n k"],
) -> Int[np.ndarray, " n"]:
  """Labels as they are, or the most probable class of each distribution."""
  return targets if targets.ndim == 1 else targets.argmax(axis=1)
