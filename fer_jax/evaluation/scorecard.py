"""Scores as a table and as JSON.

A class's recall is the fraction of its examples that are predicted correctly.
Its one-vs-rest accuracy is the fraction of all examples that are correctly
predicted as this class or correctly not, which is high for any rare class.
Balanced accuracy is the mean recall.

A class without examples has no recall and no F1 (nan here, null in JSON, "-"
in the table) and is not part of the averages. A class that is never predicted
has precision 0.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int

from fer_jax.evaluation import calibration, intervals
from fer_jax.evaluation.calibration import Calibration
from fer_jax.evaluation.intervals import Interval
from fer_jax.tables import format_table


@dataclasses.dataclass(frozen=True)
class ClassScores:
  """Scores of one class.

  Attributes:
    name: name of the class.
    precision: fraction of the examples predicted as this class that are.
    recall: fraction of the examples of this class that are predicted as it.
    f1: harmonic mean of precision and recall.
    accuracy: one-vs-rest accuracy.
    support: number of examples of this class.
  """

  name: str
  precision: float
  recall: float
  f1: float
  accuracy: float
  support: int


@dataclasses.dataclass(frozen=True)
class Averages:
  """Means over the classes that have examples."""

  precision: float
  recall: float
  f1: float


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
  """Scores of predictions; `str()` is a table.

  Attributes:
    class_names: in the order of the outputs.
    targets: "labels", or "distributions" of votes: then `loss` and
      `brier_score` are relative to the votes, all other scores relative to the
      class with the most votes.
    num_images: number of examples.
    loss: mean cross-entropy, in nats.
    accuracy: fraction of examples whose most probable class is correct.
    balanced_accuracy: mean recall of the classes that have examples.
    top2_accuracy: fraction of examples where one of the two most probable
      classes is correct.
    brier_score: mean over examples of the sum over classes of
      (probability - target)^2, from 0 to 2.
    per_class: in the order of `class_names`.
    macro: averages with equal weight for every class.
    weighted: averages weighted by the number of examples of each class.
    calibration: error and bins.
    confusion: counts; rows are true classes, columns predicted classes.
    intervals: 95 % bootstrap intervals of `accuracy`, `balanced_accuracy`,
      `macro_f1` and `loss`; empty if `num_bootstrap` is 0.
    num_bootstrap: number of resamples for the intervals.
    seed: seed of the resamples.
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
    """Returns dictionaries, lists and numbers; nan becomes None."""
    plain = _plain(dataclasses.asdict(self))
    assert isinstance(plain, dict)
    return plain

  def __str__(self) -> str:
    classes = format_table(list(self._classes()))
    rule = "-" * max(map(len, classes))
    notes = [
      "one-vs-rest is an accuracy; the calibration error is over"
      f" {calibration.NUM_BINS} equal bins"
    ]
    if self.intervals:
      notes.append(
        f"[ ] are {intervals.LEVEL:.0%} bootstrap intervals, from"
        f" {self.num_bootstrap:,} resamples of the images"
      )
    return "\n".join(
      (
        *format_table(list(self._totals())),
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
    kind = " with the votes" if self.targets == "distributions" else ""
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
      values = one.precision, one.recall, one.f1, one.accuracy
      yield one.name, *map(_percent, values), f"{one.support:,}"
    for name, means in (("macro", self.macro), ("weighted", self.weighted)):
      values = means.precision, means.recall, means.f1, math.nan
      total = f"{self.num_images:,}"
      yield f"{name} average", *map(_percent, values), total


def _plain(value: Any) -> Any:
  """Returns a value that can be written as JSON."""
  if isinstance(value, dict):
    return {key: _plain(item) for key, item in value.items()}
  if isinstance(value, np.ndarray):
    return value.tolist()
  if isinstance(value, (list, tuple)):
    return [_plain(item) for item in value]
  return None if isinstance(value, float) and math.isnan(value) else value


def _percent(value: float) -> str:
  return "-" if math.isnan(value) else f"{value:.2%}"
