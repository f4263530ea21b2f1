"""Agreement of FER2013's labels with the votes of FER+ on the same images."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

from fer_jax.data import views
from fer_jax.data.datasets import class_names, ferplus_order
from fer_jax.data.splits import Dataset
from fer_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Agreement:
  """The labels of FER2013 against those of FER+, for the same images.

  Attributes:
    rows: FER2013's classes.
    columns: FER+'s: expressions, then unknown (no majority) and no face.
    table: number of images with each pair of classes `[rows columns]`.
  """

  rows: tuple[str, ...]
  columns: tuple[str, ...]
  table: Int[np.ndarray, "rows columns"]

  @property
  def total(self) -> int:
    """Returns the number of images compared."""
    return int(self.table.sum())

  @property
  def agreeing(self) -> int:
    """Returns the number of images with the same class in both."""
    return int(self.table[self._same].sum())

  @property
  def in_common(self) -> int:
    """Returns the number of images of FER+ classes that FER2013 has too."""
    return int(self.table[:, self._same.any(axis=0)].sum())

  @property
  def at_chance(self) -> bool:
    """Returns whether the labels agree no better than unrelated ones."""
    total = max(self.in_common, 1)
    common = self.table[:, self._same.any(axis=0)]
    by_row = common.sum(axis=1) / total
    by_column = common.sum(axis=0) / total
    same = self._same[:, self._same.any(axis=0)]
    chance = float((by_row[:, None] * by_column[None, :])[same].sum())
    expected = ferplus_order.EXPECTED
    return self.agreeing / total < (chance + expected) / 2 < expected

  @property
  def _same(self) -> Bool[np.ndarray, "rows columns"]:
    return np.array(
      [
        [class_names.label_of_folder(column) == row for column in self.columns]
        for row in map(class_names.label_of_folder, self.rows)
      ]
    )


def agreement(fer2013: Dataset, ferplus: Dataset) -> Agreement:
  """Counts the labels of images that are in both datasets.

  Args:
    fer2013: FER2013.
    ferplus: FER+ of the same release, with labels or distributions.

  Raises:
    UserError: they have no row in common, or rows of the same number with
      different images.
  """
  table = np.zeros((fer2013.num_classes, ferplus.num_classes), int)
  for name in fer2013.splits.keys() & ferplus.splits.keys():
    first = fer2013.splits[name].arrays()
    second = ferplus.splits[name].arrays()
    _, i, j = np.intersect1d(
      first["row"], second["row"], assume_unique=True, return_indices=True
    )
    if not np.array_equal(first["image"][i], second["image"][j]):
      raise UserError(
        f"rows of {name} differ between {fer2013.name} and {ferplus.name}: "
        "prepare both from one release that keeps the order, as fer2013.csv"
      )
    given = views.labels_of(first["target"])[i]
    voted = views.labels_of(second["target"])[j]
    np.add.at(table, (given, voted), 1)
  if not table.any():
    raise UserError(
      f"{fer2013.name} and {ferplus.name} have no row in common: prepare both"
      " from one release"
    )
  return Agreement(fer2013.class_names, ferplus.class_names, table)
