"""Scores as a table and as JSON.

Names are exact. A class's recall is the share of its rows that are right; its
one-vs-rest accuracy is the share of all rows that are rightly called this
class or rightly not, which is high for any rare class. Balanced accuracy is
the mean recall.

A class without rows has no recall and no F1 (nan here, null in JSON, "-" in
the table) and no part in the averages. One that is never predicted has
precision 0.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from fer_jax.evaluation import calibration, intervals
from fer_jax.evaluation.calibration import Calibration
from fer_jax.evaluation.intervals import Interval


@dataclasses.dataclass(frozen=True)
class ClassScores:
  """Scores of one class.

  Attributes:
    name: of the class.
    precision: share of right ones among the rows called this class.
    recall: share of right ones among the rows of this class.
    f1: harmonic mean of the two.
    accuracy: one-vs-rest.
    support: rows of this class.
  """

  name: str
  precision: float
  recall: float
  f1: float
  accuracy: float
  support: int


@dataclasses.dataclass(frozen=True)
class Averages:
  """Means over the classes that have rows."""

  precision: float
  recall: float
  f1: float


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
  """Scores of predictions; `str()` is a table.

  Attributes:
    class_names: in the order of the outputs.
    targets: "labels", or "distributions" of votes: `loss` and `brier_score`
      are then to the votes, all else to the class with most of them.
    num_images: rows.
    loss: mean cross-entropy, in nats.
    accuracy: share of rows whose most probable class is right.
    balanced_accuracy: mean recall of the classes that have rows.
    top2_accuracy: share of rows where one of the two most probable is right.
    brier_score: mean over rows of the sum over classes of
      (probability - target)^2, from 0 to 2.
    per_class: in the order of `class_names`.
    macro: averages that count every class alike.
    weighted: averages that count a class by its rows.
    calibration: error and bins.
    confusion: counts; rows are true classes, columns predicted ones.
    intervals: 95 % bootstrap intervals of `accuracy`, `balanced_accuracy`,
      `macro_f1` and `loss`; empty if none was asked for.
    num_bootstrap: resamples they are of.
    seed: of the resamples.
  """

  class_names: tuple[str, ...]
  targets: str
  num_images: int
  loss: float
  accuracy: float
  balanced_accuracy: float
  top2_accuracy: float
  brier_score: float
  per_class: tuple[ClassScores, ...]
  macro: Averages
  weighted: Averages
  calibration: Calibration
  confusion: Int[np.ndarray, "k k"]
  intervals: dict[str, Interval]
  num_bootstrap: int
  seed: int

  def to_json(self) -> dict[str, Any]:
    """Plain dictionaries, lists and numbers; what is nan is None."""
    plain = _plain(dataclasses.asdict(self))
    assert isinstance(plain, dict)
    return plain

  def __str__(self) -> str:
    classes = list(_table(self._classes()))
    rule = "-" * max(map(len, classes))
    notes = [
      "one-vs-rest is an accuracy; calibration error over"
      f" {calibration.NUM_BINS} equal bins"
    ]
    if self.intervals:
      notes.append(
        f"[ ] hold {intervals.LEVEL:.0%} of {self.num_bootstrap:,} bootstrap"
        " resamples of the images"
      )
    return "\n".join(
      (
        *_table(self._totals()),
        "",
        classes[0],
        rule,
        *classes[1:-2],
        rule,
        *classes[-2:],
        "",
        *notes,
      )
    )

  def _totals(self) -> Iterator[tuple[str, ...]]:
    kind = " to the votes" if self.targets == "distributions" else ""
    for title, value, form, name in (
      ("accuracy", self.accuracy, ".2%", "accuracy"),
      ("balanced accuracy", self.balanced_accuracy, ".2%", "balanced_accuracy"),
      ("macro F1", self.macro.f1, ".2%", "macro_f1"),
      ("top-2 accuracy", self.top2_accuracy, ".2%", ""),
      (f"cross-entropy{kind}", self.loss, ".4f", "loss"),
      (f"Brier score{kind}", self.brier_score, ".4f", ""),
      ("calibration error", self.calibration.error, ".2%", ""),
    ):
      of = self.intervals.get(name)
      interval = f"[{of.low:{form}}, {of.high:{form}}]" if of else ""
      yield title, f"{value:{form}}", interval

  def _classes(self) -> Iterator[tuple[str, ...]]:
    yield "class", "precision", "recall", "F1", "one-vs-rest", "images"
    for one in self.per_class:
      shares = one.precision, one.recall, one.f1, one.accuracy
      yield one.name, *map(_percent, shares), f"{one.support:,}"
    for name, means in (("macro", self.macro), ("weighted", self.weighted)):
      shares = means.precision, means.recall, means.f1, math.nan
      total = f"{self.num_images:,}"
      yield f"{name} average", *map(_percent, shares), total


def _plain(value: Any) -> Any:
  """A value that JSON has, made of ones that it has."""
  if isinstance(value, dict):
    return {key: _plain(item) for key, item in value.items()}
  if isinstance(value, np.ndarray):
    return value.tolist()
  if isinstance(value, (list, tuple)):
    return [_plain(item) for item in value]
  return None if isinstance(value, float) and math.isnan(value) else value


def _percent(value: float) -> str:
  return "-" if math.isnan(value) else f"{value:.2%}"


def _table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
  """Lines up columns: the first at its left, the others at their right."""
  rows = list(rows)
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  for first, *rest in rows:
    cells = [cell.rjust(w) for cell, w in zip(rest, widths[1:], strict=True)]
    yield "  ".join((first.ljust(widths[0]), *cells)).rstrip()
