"""Prepared datasets: splits of examples with random access."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int, Integer

from fer_jax.data.fingerprints import example_digest, fingerprint_of
from fer_jax.data.records import RecordFiles
from fer_jax.errors import UserError, require

Arrays = dict[str, np.ndarray]

_CHUNK = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """One split of a prepared dataset, in the order of its release.

  Attributes:
    name: "train", "validation" or "test".
    source: the examples of its files.
    places: the positions in `source` of the split's examples, in order; None
      for all.
    classes: the classes of `source` that the split keeps, in their new order;
      None for all.
    own_targets: targets that replace those of the files; None for none.
  """

  name: str
  source: RecordFiles
  places: Int[np.ndarray, " n"] | None = None
  classes: Int[np.ndarray, " k"] | None = None
  own_targets: Float[np.ndarray, "n k"] | None = None

  def __repr__(self) -> str:
    return f"Split({self.name}, {len(self):,} examples)"

  def __len__(self) -> int:
    return len(self.source) if self.places is None else len(self.places)

  def read(self, indices: Integer[np.ndarray, " b"]) -> Arrays:
    """Reads examples by their position in the split.

    Args:
      indices: positions, 0 to `len(self) - 1`, in any order; those of a
        boolean mask are `np.flatnonzero(mask)`.

    Returns:
      `image` uint8 `[b h w c]`, `target` int32 `[b]` or float32 `[b k]` and
      `row`, the position in the release, int32 `[b]`.

    Raises:
      UserError: `indices` are not such positions.
    """
    indices = self._checked(indices)
    places = indices if self.places is None else self.places[indices]
    arrays = self.source.read(places)
    if self.own_targets is not None:
      return arrays | {"target": self.own_targets[indices]}
    return arrays | {"target": self._renumbered(arrays["target"])}

  def chunks(self) -> Iterator[tuple[int, Arrays]]:
    """Yields the split in parts: position of the first example, arrays."""
    for start in range(0, len(self), _CHUNK):
      yield start, self.read(np.arange(start, min(start + _CHUNK, len(self))))

  def arrays(self) -> Arrays:
    """Returns the whole split, as `read` does; cached and read-only."""
    return dict(self._arrays)

  def targets(self) -> np.ndarray:
    """Returns the targets of the whole split, without caching its images.

    They are cached and read-only.
    """
    return self._targets

  def pick(
    self,
    places: Int[np.ndarray, " n"],
    classes: Int[np.ndarray, " k"] | None = None,
    name: str = "",
  ) -> Self:
    """Returns a subset of this split as a split.

    Args:
      places: positions of the examples, in order.
      classes: the classes to keep, in their new order; every example's class
        must be one of them. None keeps all.
      name: name of the new split; "" keeps the name.
    """
    if self.places is not None:
      places = self.places[places]
    if classes is None:
      classes = self.classes
    elif self.classes is not None:
      classes = self.classes[classes]
    return dataclasses.replace(
      self,
      name=name or self.name,
      places=places,
      classes=classes,
      own_targets=None,
    )

  def with_targets(self, targets: Float[np.ndarray, "n k"]) -> Self:
    """Returns the split with other targets, which its hash leaves out.

    Args:
      targets: in the order of the split. They do not pass on to what `pick`
        takes from it.
    """
    return dataclasses.replace(self, own_targets=targets)

  @functools.cached_property
  def fingerprint(self) -> str:
    """Returns a hash of the images and targets, in their order."""
    source = self.source.fingerprint or fingerprint_of(
      example_digest(image, target)
      for _, part in Split(self.name, self.source).chunks()
      for image, target in zip(part["image"], part["target"], strict=True)
    )
    if self.places is None and self.classes is None:
      return source
    digest = hashlib.blake2b(source.encode(), digest_size=16)
    for part in (self.places, self.classes):
      digest.update(b"-" if part is None else part.astype("<i8").tobytes())
    return digest.hexdigest()

  @functools.cached_property
  def _arrays(self) -> Arrays:
    empty = self.read(np.arange(0))
    arrays = {
      name: np.empty((len(self), *array.shape[1:]), array.dtype)
      for name, array in empty.items()
    }
    for start, chunk in self.chunks():
      for name, part in chunk.items():
        arrays[name][start : start + len(part)] = part
    for array in arrays.values():
      array.flags.writeable = False
    return arrays

  @functools.cached_property
  def _targets(self) -> np.ndarray:
    if "_arrays" in self.__dict__:
      return self._arrays["target"]
    targets = np.concatenate([part["target"] for _, part in self.chunks()])
    targets.flags.writeable = False
    return targets

  def _checked(self, indices: Any) -> Integer[np.ndarray, " b"]:
    given = np.asarray(indices)
    if given.shape == (0,):
      return given.astype(np.int64)  # An empty list has no type of its own.
    kind = f"{given.dtype}{list(given.shape)}"
    must = f"be a list of integers, 0 to {len(self) - 1} in split {self.name};"
    must += " for a boolean mask pass np.flatnonzero(mask)"
    is_list = given.ndim == 1 and np.issubdtype(given.dtype, np.integer)
    require(is_list, "indices", kind, must)
    outside = given[(given < 0) | (given >= len(self))]
    require(not len(outside), "indices", outside[:1], must)
    return given

  def _renumbered(
    self, targets: Int[np.ndarray, " b"] | Float[np.ndarray, "b k"]
  ) -> np.ndarray:
    if self.classes is None:
      return targets
    if targets.ndim == 2:
      targets = targets[:, self.classes]
      return targets / targets.sum(axis=1, keepdims=True)
    numbers = np.full(max(self.classes) + 1, -1, np.int32)
    numbers[self.classes] = np.arange(len(self.classes))
    return numbers[targets]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A prepared dataset.

  Attributes:
    name: the name it was loaded by.
    class_names: names of the classes, in the order of the targets.
    image_shape: height, width and channels.
    splits: the splits that have examples, by name.
    file_names: the image file of every row of the release, relative to its
      folder; empty where examples have no files of their own to look up.
  """

  name: str
  class_names: tuple[str, ...]
  image_shape: tuple[int, int, int]
  splits: Mapping[str, Split]
  file_names: Sequence[str] = ()

  @property
  def num_classes(self) -> int:
    """Returns the number of classes."""
    return len(self.class_names)

  def __repr__(self) -> str:
    sizes = ", ".join(f"{name}: {len(s):,}" for name, s in self.splits.items())
    shape = " x ".join(map(str, self.image_shape))
    return f"Dataset({self.name}, {shape}, {self.num_classes} classes, {sizes})"

  def split(self, name: str) -> Split:
    """Returns a split.

    Raises:
      UserError: it is missing or empty; the message lists the others.
    """
    if name not in self.splits:
      raise UserError(
        f"dataset {self.name} has no examples in split {name!r}: there are "
        f"{', '.join(self.splits)}; dataset.holdout_validation=0.1 or "
        "dataset.holdout_test=0.1 takes a split from train"
      )
    return self.splits[name]

  def replace(self, **changes: Any) -> Self:
    """Returns the dataset with other fields."""
    return dataclasses.replace(self, **changes)

  def description(self) -> dict[str, Any]:
    """Returns what a checkpoint records of the data, in JSON's types.

    Returns:
      `name`, `class_names`, `image_shape`, and by split `num_examples` and
      `fingerprints`, which depend on the contents only: the same data from
      another folder have the same.
    """
    return {
      "name": self.name,
      "class_names": list(self.class_names),
      "image_shape": list(self.image_shape),
      "num_examples": {name: len(s) for name, s in self.splits.items()},
      "fingerprints": {name: s.fingerprint for name, s in self.splits.items()},
    }


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
  """Compares two descriptions of data.

  Args:
    old: as `Dataset.description` returned it; fields that are not there are
      not compared, and neither are splits that `old` does not list.
    new: the description of the data now.

  Returns:
    One line per difference, "class_names: happy, sad -> sad, zhappy"; empty
    where the data are the same.

  >>> old = {"class_names": ["a", "b"], "num_examples": {"train": 4}}
  >>> differences(old, {"class_names": ["a", "c"], "num_examples": {}})
  ['class_names: a, b -> a, c', 'train: 4 -> 0 examples']
  """
  found = []
  if (a := old.get("name", new.get("name"))) != (b := new.get("name")):
    found.append(f"dataset: {a} -> {b}")
  for field, separator in (("class_names", ", "), ("image_shape", " x ")):
    a, b = old.get(field), new.get(field)
    if a is not None and list(a) != list(b or ()):
      before, after = (separator.join(map(str, x or ())) for x in (a, b))
      found.append(f"{field}: {before} -> {after}")
  counts, prints = new.get("num_examples", {}), new.get("fingerprints", {})
  for split, count in old.get("num_examples", {}).items():
    if count != (now := counts.get(split, 0)):
      found.append(f"{split}: {count:,} -> {now:,} examples")
  for split, fingerprint in old.get("fingerprints", {}).items():
    same_count = old.get("num_examples", {}).get(split) == counts.get(split)
    if same_count and fingerprint != prints.get(split):
      found.append(f"{split}: other images or labels, or another order")
  return found
