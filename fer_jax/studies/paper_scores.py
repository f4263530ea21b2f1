"""Scores of a row of a paper's table, from the paper and from our runs."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Num

from fer_jax.evaluation.confusion import averages, reorder, scores_by_class
from fer_jax.studies.paper_results import Result
from fer_jax.studies.papers import Row


@dataclasses.dataclass(frozen=True)
class Metric:
  """A column of a table.

  Attributes:
    title: its heading.
    form: how a number is written.
  """

  title: str
  form: str = ".2%"

  def format(self, value: float | str | None) -> str:
    """Returns the text of a cell; "-" for None. Text is as the paper has it."""
    if value is None:
      return "-"
    text = value if isinstance(value, str) else f"{value:{self.form}}"
    return text.replace("%", " %")


_AVERAGES = {
  f"{kind}_{score}": Metric(f"{kind} {title}", ".3f")
  for kind in ("macro", "weighted")
  for score, title in (
    ("precision", "precision"),
    ("recall", "recall"),
    ("f1", "F1"),
  )
}
METRICS = {
  "stated": Metric("stated"),
  "accuracy": Metric("accuracy"),
  "last_accuracy": Metric("last epoch"),
  "last_train_accuracy": Metric("training accuracy, last epoch"),
  "train_loss": Metric("training loss", ".4f"),
  "last_train_loss": Metric("training loss, last epoch", ".4f"),
  "loss": Metric("loss", ".4f"),
  **_AVERAGES,
  "shuffled_accuracy": Metric("accuracy"),
  **{f"shuffled_{name}": metric for name, metric in _AVERAGES.items()},
}
# Metrics that have a value for each class.
PER_CLASS = {"recalls": "recall", "one_vs_rest": "one-vs-rest accuracy"}

Scores = dict[str, Any]


def printed_scores(row: Row) -> Scores:
  """Returns what a paper prints of a row, and what follows from its matrix."""
  found: Scores = {}
  if row.matrix:
    found = scores_of_confusion(printed_confusion(row))
  return found | dict(row.printed)


def printed_confusion(row: Row) -> Int[np.ndarray, "k k"]:
  """Returns a paper's confusion matrix, classes in alphabetical order."""
  lines = row.matrix.strip().splitlines()
  return np.array([[int(cell) for cell in line.split()] for line in lines])


def our_confusion(results: Sequence[Result]) -> Int[np.ndarray, "k k"]:
  """Returns the sum over seeds, classes in alphabetical order."""
  names = results[0]["class_names"]
  total = sum(np.array(result["confusion"]) for result in results)
  return reorder(np.asarray(total), names, sorted(names))


def our_scores(results: Sequence[Result]) -> Scores:
  """Returns the scores of a row's runs, averaged over seeds.

  Args:
    results: one per seed.
  """
  every = []
  for result in results:
    scores = scores_of_confusion(our_confusion([result]))
    curves = result["curves"]
    scores |= {
      "loss": result["loss"],
      "train_loss": result["train_loss"],
      "last_accuracy": curves["validation_accuracy"][-1],
      "last_train_accuracy": curves["train_accuracy"][-1],
      "last_train_loss": curves["train_loss"][-1],
    }
    every.append(scores)
  return {
    name: np.mean([scores[name] for scores in every], axis=0)
    for name in every[0]
  }


def scores_of_confusion(confusion: Num[np.ndarray, "k k"]) -> Scores:
  """Returns accuracy, averages over classes, and scores by class.

  `shuffled_` scores are those expected if the labels were shuffled: then
  each prediction meets a label by its frequency.

  Args:
    confusion: counts; rows are true classes, columns predicted classes.

  >>> found = scores_of_confusion(np.array([[8, 2], [0, 10]]))
  >>> found["accuracy"], found["macro_recall"], found["shuffled_accuracy"]
  (0.9, 0.9, 0.5)
  """
  expected = np.outer(confusion.sum(axis=1), confusion.sum(axis=0))
  shuffled = _averages(expected / confusion.sum())
  by_class = scores_by_class(confusion)
  return {
    **_averages(confusion),
    **{f"shuffled_{name}": value for name, value in shuffled.items()},
    "recalls": by_class["recall"],
    "one_vs_rest": by_class["accuracy"],
  }


def _averages(confusion: Num[np.ndarray, "k k"]) -> dict[str, float]:
  by_class = scores_by_class(confusion)
  macro, weighted = averages(by_class, confusion.sum(axis=1))
  return {
    "accuracy": float(np.trace(confusion) / confusion.sum()),
    **{f"macro_{name}": value for name, value in macro.items()},
    **{f"weighted_{name}": value for name, value in weighted.items()},
  }
