"""What a prepared data set is: splits of rows that are read by place."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int, Integer

from fer_jax.errors import UserError

Arrays = dict[str, np.ndarray]

_CHUNK = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """One split of a prepared data set, in the order of its release.

  Attributes:
    name: "train", "validation" or "test".
    source: the data source of its array_record files (`len`, `[i]` and
      `__getitems__([i, ...])`), a fit source for grain.
    places: the rows of `source` that the split has, in order; None for all.
    classes: the classes of `source` that targets here are numbered by; None
      for all, as they are.
  """

  name: str
  source: Any
  places: Int[np.ndarray, " n"] | None = None
  classes: Int[np.ndarray, " k"] | None = None

  def __len__(self) -> int:
    return len(self.source) if self.places is None else len(self.places)

  def read(self, indices: Integer[np.ndarray, " b"]) -> Arrays:
    """Reads rows by their place in the split.

    Args:
      indices: places, 0 to `len(self) - 1`, in any order.

    Returns:
      `image` uint8 `[b h w c]`, `target` int32 `[b]` or float32 `[b k]` and
      `row`, the place in the release, int32 `[b]`.
    """
    indices = np.asarray(indices)
    if self.places is not None:
      indices = self.places[indices]
    records = self.source.__getitems__([int(i) for i in indices])
    features = self.source.dataset_info.features
    target = features["target"]
    soft = np.issubdtype(target.np_dtype, np.floating)
    targets = _stack(
      records, "target", target.shape, np.float32 if soft else np.int32
    )
    return {
      "image": _stack(records, "image", features["image"].shape, np.uint8),
      "target": self._renumbered(targets),
      "row": _stack(records, "row", (), np.int32),
    }

  def arrays(self) -> Arrays:
    """Returns the whole split as `read` does; read once, not to be written."""
    return dict(self._arrays)

  def targets(self) -> np.ndarray:
    """Returns the targets of the whole split, without keeping its images."""
    return self._targets

  def pick(
    self,
    places: Int[np.ndarray, " n"],
    classes: Int[np.ndarray, " k"] | None = None,
    name: str = "",
  ) -> Self:
    """Returns some rows of this split, as a split of their own.

    Args:
      places: which, in order.
      classes: those that targets are numbered by; every row's must be one.
      name: another name.
    """
    if self.places is not None:
      places = self.places[places]
    if classes is None:
      classes = self.classes
    elif self.classes is not None:
      classes = self.classes[classes]
    return dataclasses.replace(
      self, name=name or self.name, places=places, classes=classes
    )

  @functools.cached_property
  def _arrays(self) -> Arrays:
    arrays = self.read(np.arange(len(self)))
    for array in arrays.values():
      array.flags.writeable = False
    return arrays

  @functools.cached_property
  def _targets(self) -> np.ndarray:
    if "_arrays" in self.__dict__:
      return self._arrays["target"]
    chunks = [
      self.read(np.arange(start, min(start + _CHUNK, len(self))))["target"]
      for start in range(0, len(self), _CHUNK)
    ]
    return np.concatenate(chunks)

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
  """A prepared data set.

  Attributes:
    name: the name it was loaded by.
    class_names: what target `i`, or place `i` of a target, stands for.
    image_shape: height, width and channels.
    splits: the splits that have rows, by name.
  """

  name: str
  class_names: tuple[str, ...]
  image_shape: tuple[int, int, int]
  splits: Mapping[str, Split]

  @property
  def num_classes(self) -> int:
    """Returns the number of classes."""
    return len(self.class_names)

  def split(self, name: str) -> Split:
    """Returns a split.

    Raises:
      UserError: it is missing or has no rows; the message lists those there.
    """
    if name not in self.splits:
      raise UserError(
        f"data set {self.name} has no rows in split {name!r}: there are "
        f"{', '.join(self.splits)}; --config.dataset.holdout_validation and "
        "holdout_test cut splits from train"
      )
    return self.splits[name]

  def replace(self, **changes: Any) -> Self:
    """Returns the data set with other fields."""
    return dataclasses.replace(self, **changes)


def _stack(
  records: list[dict[str, Any]], key: str, shape: tuple[int, ...], dtype: type
) -> np.ndarray:
  """Stacks one feature of the records, which may be none."""
  out: np.ndarray = np.empty((len(records), *shape), dtype)
  for i, record in enumerate(records):
    out[i] = record[key]
  return out
