"""Class counts of a dataset, and its duplicate images.

Images are duplicates if they are equal byte for byte. A copy in two splits lets
a network be tested on an image that it was trained on; copies with different
labels cannot all be learned.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from fer_jax.data import views
from fer_jax.data.splits import Dataset

_ORDER = ("train", "validation", "test")


class Copy(NamedTuple):
  """One example of those that have the same image.

  Attributes:
    split: its split.
    place: its position in the split.
    row: its position in the release.
    label: its class, the most probable one of a distribution.
  """

  split: str
  place: int
  row: int
  label: int


@dataclasses.dataclass(frozen=True, eq=False)
class Audit:
  """Class counts and duplicates of a dataset.

  Attributes:
    class_names: the classes, by number.
    counts: split -> examples of each class `[k]`; train, validation, test.
    groups: the examples of each image that has two or more, in the order of
      `counts` and of the splits.
  """

  class_names: tuple[str, ...]
  counts: Mapping[str, Int[np.ndarray, " k"]]
  groups: Sequence[tuple[Copy, ...]]

  @property
  def sizes(self) -> dict[str, int]:
    """Returns the number of examples of each split."""
    return {split: int(counts.sum()) for split, counts in self.counts.items()}

  @property
  def repeats(self) -> dict[str, int]:
    """Returns how many examples of each split repeat an earlier one."""
    found = dict.fromkeys(self.counts, 0)
    for group in self.groups:
      for split, number in _per_split(group).items():
        found[split] += number - 1
    return found

  @property
  def leaks(self) -> dict[tuple[str, str], int]:
    """Returns the number of examples whose image is also in another split.

    For each pair of splits (later, earlier), the examples of the later with a
    copy in the earlier; train is the earliest, test the latest.
    """
    splits = tuple(self.counts)
    found = {
      (later, earlier): 0
      for i, later in enumerate(splits)
      for earlier in splits[:i]
    }
    for group in self.groups:
      numbers = _per_split(group)
      for later, earlier in found:
        if earlier in numbers:
          found[later, earlier] += numbers.get(later, 0)
    return found

  @property
  def conflicts(self) -> dict[int, tuple[Copy, ...]]:
    """Returns the groups whose labels differ, by their index in `groups`."""
    return {
      number: group
      for number, group in enumerate(self.groups)
      if len({copy.label for copy in group}) > 1
    }


def audit(dataset: Dataset) -> Audit:
  """Finds duplicate images in a dataset, and counts its classes."""
  splits = [dataset.splits[name] for name in _ORDER if name in dataset.splits]
  places: dict[bytes, list[tuple[str, int]]] = {}
  counts = {}
  split_labels = {}
  for split in splits:
    split_labels[split.name] = views.labels_of(split.targets())
    counts[split.name] = np.bincount(
      split_labels[split.name], minlength=dataset.num_classes
    )
    for place, digest in enumerate(views.digests(split)):
      places.setdefault(digest, []).append((split.name, place))
  groups = []
  for found in places.values():
    if len(found) > 1:
      copies = []
      for name, place in found:
        row = int(dataset.splits[name].read(np.array([place]))["row"][0])
        copies.append(Copy(name, place, row, int(split_labels[name][place])))
      groups.append(tuple(copies))
  return Audit(dataset.class_names, counts, groups)


def _per_split(group: Sequence[Copy]) -> dict[str, int]:
  numbers: dict[str, int] = {}
  for copy in group:
    numbers[copy.split] = numbers.get(copy.split, 0) + 1
  return numbers
