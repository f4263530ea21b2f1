"""Views of a prepared dataset: subsets of classes, holdouts, deduplication.

A view selects examples and renumbers classes; nothing is prepared again. The
order is fixed: classes are selected first, then holdouts are taken from the
remaining training examples, then duplicates are dropped.
"""

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Bool, Float, Int

from fer_jax import console
from fer_jax.data import image_listing
from fer_jax.data.splits import Dataset, Split
from fer_jax.errors import UserError, choose, listed, require

# Option -> default; every dataset has these in addition to its own options.
OPTIONS: dict[str, Any] = {
  "classes": "",
  "holdout_validation": 0.0,
  "holdout_test": 0.0,
  "holdout_seed": 0,
  "drop_duplicates": False,
}
_EVALUATION = ("validation", "test")


def apply(dataset: Dataset, **options: Any) -> Dataset:
  """Returns the view that the options describe.

  Args:
    dataset: as prepared.
    **options: values of `OPTIONS`:
      `classes`: names of the classes to keep, in their new order, as a sequence
      or comma-separated, where a name that has a comma is in double quotes; ""
      keeps all. `holdout_validation`, `holdout_test`:
      fraction of the training examples, 0 to 1, that becomes this split,
      replacing an existing one. `holdout_seed`: seed of the holdouts.
      `drop_duplicates`: drops training examples whose image is also in an
      evaluation split.

  Raises:
    UserError: an option has a wrong type, is out of its range or has no effect,
      names an unknown class, or leaves no training examples.
  """
  options = {**OPTIONS, **options}
  check_types(options)
  if classes := options["classes"]:
    names = _split(classes) if isinstance(classes, str) else classes
    dataset = select_classes(dataset, names)
  fractions = {split: options[f"holdout_{split}"] for split in _EVALUATION}
  total = sum(fractions.values())
  if not total < 1:
    raise UserError(
      f"dataset.holdout_validation and dataset.holdout_test are {total:g} of"
      " the training examples together, which leaves none: lower them"
    )
  if total:
    dataset = hold_out(dataset, fractions, options["holdout_seed"])
  elif options["holdout_seed"]:
    raise UserError(
      f"dataset.holdout_seed={options['holdout_seed']} has no effect without a"
      " holdout: set dataset.holdout_validation or dataset.holdout_test too"
    )
  if options["drop_duplicates"]:
    dataset = drop_duplicates(dataset)
  return dataset


def check_types(options: Mapping[str, Any]) -> None:
  """Checks the type and the range of every option.

  Args:
    options: values of all of `OPTIONS`.

  Raises:
    UserError: one is wrong.
  """
  classes, seed = options["classes"], options["holdout_seed"]
  ok = isinstance(classes, str) or (
    isinstance(classes, Sequence)
    and all(isinstance(name, str) for name in classes)
  )
  require(ok, "dataset.classes", classes, "be names, comma-separated")
  for split in _EVALUATION:
    fraction = options[f"holdout_{split}"]
    ok = isinstance(fraction, int | float) and 0 <= fraction < 1
    must = "be a fraction of the training examples, 0 to less than 1"
    require(ok, f"dataset.holdout_{split}", fraction, must)
  ok = isinstance(seed, int | np.integer) and bool(seed >= 0)
  require(ok, "dataset.holdout_seed", seed, "be an integer of at least 0")
  drops = options["drop_duplicates"]
  ok = isinstance(drops, bool)
  require(ok, "dataset.drop_duplicates", drops, "be True or False")


def _split(classes: str) -> list[str]:
  """Returns comma-separated names, which may be in double quotes.

  >>> _split('sad, "joy, big"')
  ['sad', 'joy, big']
  """
  try:
    names = next(csv.reader([classes], skipinitialspace=True))
  except csv.Error as e:
    raise UserError(f"dataset.classes={classes!r}: {e}") from e
  return [name.strip() for name in names]


def select_classes(dataset: Dataset, names: Sequence[str]) -> Dataset:
  """Keeps the examples of some classes, and renumbers these.

  An example whose target is a distribution is kept if its most probable class
  is; the distribution is renormalized over the classes kept.

  Args:
    dataset: any.
    names: the classes, in their new order.

  Raises:
    UserError: a name is unknown or given twice, or there are fewer than two.
  """
  for name in names:
    choose(f"class of dataset {dataset.name}", name, dataset.class_names)
  if len(set(names)) != len(names) or len(names) < 2:
    raise UserError(
      f"dataset.classes={','.join(names)}: give two or more different"
      f" classes of {listed(dataset.class_names)}"
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
  """Takes evaluation splits from the training examples, stratified by class.

  The same fraction of every class is taken, to the nearest example, so that
  the splits have the classes in the same proportions. A warning names classes
  that are too small for one example.

  Args:
    dataset: any with a split `train`.
    fractions: split -> fraction of the training examples.
    seed: seed of the random choice.

  Raises:
    UserError: a fraction is too small for one example, or leaves none of a
      class.
  """
  train = dataset.split("train")
  labels = labels_of(train.targets())
  rng = np.random.default_rng(seed)
  held: dict[str, list[Int[np.ndarray, " n"]]] = {s: [] for s in fractions}
  rest = []
  for label in range(dataset.num_classes):
    chosen = rng.permutation(np.flatnonzero(labels == label))
    start = 0
    for split, fraction in fractions.items():
      end = start + round(fraction * len(chosen))
      held[split].append(chosen[start:end])
      start = end
    if start and start == len(chosen):
      given = " and ".join(f"{f:g} for {s}" for s, f in fractions.items() if f)
      raise UserError(
        f"holding out {given} leaves no training example of class"
        f" {dataset.class_names[label]}, which has {start}: lower"
        " dataset.holdout_validation or dataset.holdout_test"
      )
    rest.append(chosen[start:])
  splits = dict(dataset.splits)
  for split, parts in held.items():
    if not fractions[split]:
      continue
    places = np.sort(np.concatenate(parts))
    if not places.size:
      raise UserError(
        f"dataset.holdout_{split}={fractions[split]} of {len(train)} training"
        " examples is less than one of any class: raise it, or add examples to"
        " classes, which need two or more"
      )
    splits[split] = train.pick(places, name=split)
    _warn_of_missing(dataset, splits[split], fractions[split])
  splits["train"] = train.pick(np.sort(np.concatenate(rest)))
  return dataset.replace(splits=splits)


def _warn_of_missing(dataset: Dataset, held: Split, fraction: float) -> None:
  """Warns of classes of the training examples that a holdout has none of.

  Args:
    dataset: that it was taken from.
    held: the holdout.
    fraction: of the training examples.
  """
  before, taken = (
    np.bincount(labels_of(split.targets()), minlength=dataset.num_classes)
    for split in (dataset.split("train"), held)
  )
  missing = [
    f"{dataset.class_names[label]} ({before[label]} training examples)"
    for label in np.flatnonzero((before > 0) & (taken == 0))
  ]
  if missing:
    logging.warning(
      "dataset.holdout_%s=%g takes no example of %s: the split's scores do not"
      " include these classes",
      held.name,
      fraction,
      image_listing.some(missing),
    )


def drop_duplicates(dataset: Dataset) -> Dataset:
  """Drops training examples whose image is also in an evaluation split.

  Images are duplicates if they are equal byte for byte.

  Raises:
    UserError: no training example is left.
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
  console.say(
    f"{dataset.name}: dropped {dropped:,} of {len(train):,} training examples"
    " whose image is also in validation or test"
  )
  must = "be False: every image of train is also in validation or test"
  require(bool(unique.any()), "dataset.drop_duplicates", True, must)
  splits = {**dataset.splits, "train": train.pick(np.flatnonzero(unique))}
  return dataset.replace(splits=splits)


def digests(split: Split) -> Iterator[bytes]:
  """Yields a hash of every image of a split, in its order."""
  for _, part in split.chunks():
    for image in part["image"]:
      yield hashlib.blake2b(image.tobytes(), digest_size=16).digest()


def labels_of(
  targets: Int[np.ndarray, " n"] | Float[np.ndarray, "n k"],
) -> Int[np.ndarray, " n"]:
  """Returns labels unchanged, or the most probable class of distributions."""
  return targets if targets.ndim == 1 else targets.argmax(axis=1)
