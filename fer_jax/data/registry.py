"""Data sets by name: prepared once, then read by row.

>>> "fer2013" in available()
True
"""

import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Integer

from fer_jax.errors import UserError, choose

# Name -> "module:class". Modules are imported when their data are asked for:
# tensorflow-datasets takes seconds to import.
DATASETS = {
  "fer2013": "fer_jax.data.fer2013:Fer2013",
  "synthetic_faces": "fer_jax.data.synthetic_faces:SyntheticFaces",
}

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Split:
  """One split of a prepared data set, in the order of its release.

  Attributes:
    name: "train", "validation" or "test".
    source: the data source of its array_record files (`len`, `[i]` and
      `__getitems__([i, ...])`), a fit source for grain.
  """

  name: str
  source: Any

  def __len__(self) -> int:
    return len(self.source)

  def read(self, indices: Integer[np.ndarray, " b"]) -> Arrays:
    """Reads rows by their place in the split.

    Args:
      indices: places, 0 to `len(self) - 1`, in any order.

    Returns:
      `image` uint8 `[b h w c]`, `target` int32 `[b]` or float32 `[b k]` and
      `row`, the place in the release, int32 `[b]`.
    """
    records = self.source.__getitems__([int(i) for i in indices])
    features = self.source.dataset_info.features
    target = features["target"]
    soft = np.issubdtype(target.np_dtype, np.floating)
    return {
      "image": _stack(records, "image", features["image"].shape, np.uint8),
      "target": _stack(
        records, "target", target.shape, np.float32 if soft else np.int32
      ),
      "row": _stack(records, "row", (), np.int32),
    }

  def arrays(self) -> Arrays:
    """Returns the whole split as `read` does; read once, not to be written."""
    return dict(self._arrays)

  @functools.cached_property
  def _arrays(self) -> Arrays:
    arrays = self.read(np.arange(len(self)))
    for array in arrays.values():
      array.flags.writeable = False
    return arrays


@dataclass(frozen=True, eq=False)
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
        f"data set {self.name} has no rows in split {name!r}: "
        f"there are {', '.join(self.splits)}"
      )
    return self.splits[name]


def available() -> list[str]:
  """Returns the names that `load` knows."""
  return sorted(DATASETS)


def load(
  name: str, *, data_dir: str = "", prepared_dir: str = "", **options: Any
) -> Dataset:
  """Opens a data set, preparing it first if that has not been done.

  Args:
    name: one of `available()`.
    data_dir: where the release's files lie, or such a file itself; "" is the
      manual folder of tensorflow-datasets, or else what was prepared before.
      Data sets that need no release do not look at it.
    prepared_dir: where prepared files go; "" is tensorflow-datasets' folder.
    **options: of the data set.

  Raises:
    UserError: the name or an option is unknown, or the release is missing or
      wrong.
  """
  choose("data set", name, DATASETS)
  module, class_name = DATASETS[name].split(":")
  builder_class = getattr(importlib.import_module(module), class_name)
  builder = builder_class(
    release_dir=data_dir, prepared_dir=prepared_dir, **options
  ).prepare()
  return Dataset(
    name=name,
    class_names=builder.class_names,
    image_shape=builder.image_shape,
    splits=MappingProxyType(
      {
        split: Split(split, builder.as_data_source(split))
        for split in builder.info.splits
      }
    ),
  )


def _stack(
  records: list[dict[str, Any]], key: str, shape: tuple[int, ...], dtype: type
) -> np.ndarray:
  """Stacks one feature of the records, which may be none."""
  out: np.ndarray = np.empty((len(records), *shape), dtype)
  for i, record in enumerate(records):
    out[i] = record[key]
  return out
