"""The tables that compare the recipes of a study, as Markdown and as CSV."""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from fer_jax.evaluation.intervals import Interval
from fer_jax.evaluation.scorecard import ClassScores, Scores
from fer_jax.studies.comparison import Recipe
from fer_jax.tables import Table


def tables(recipes: Sequence[Recipe], split: str) -> list[Table]:
  """Returns all tables, the most important first."""
  return [
    comparison(recipes, split),
    losses(recipes),
    scores(recipes, split),
    per_class(recipes, split),
  ]


def comparison(recipes: Sequence[Recipe], split: str) -> Table:
  """Accuracy, cost, and the difference to the baseline (Jiang's tables)."""
  rows = []
  for recipe in recipes:
    one = recipe.outcomes[0]
    versus, cells = recipe.versus, ["", "", ""]
    if versus:
      cells = [
        f"{100 * versus.difference:+.2f} {_interval(versus.interval, '+.2f')}",
        _p(versus.p_images),
        "-" if versus.p_seeds is None else _p(versus.p_seeds),
      ]
    rows.append(
      (
        recipe.name,
        f"{one.num_parameters:,}",
        f"{one.macs / 1e6:,.1f}",
        _percent(recipe, lambda scores: scores.accuracy),
        _interval(recipe.interval, ".2f"),
        recipe.figure(lambda o: o.leak_free_accuracy).format(".2f", 100),
        recipe.figure(lambda o: o.scores.loss).format(".4f"),
        *cells,
        recipe.figure(lambda o: o.images_per_second).format(",.0f"),
        recipe.figure(lambda o: o.seconds / 60).format(",.1f"),
      )
    )
  baselines = [r.versus.baseline for r in recipes if r.versus]
  against = f"vs {baselines[0]}" if baselines else "vs baseline"
  return Table(
    "comparison",
    f"Accuracy on {split} in percent, and its cost",
    (
      "recipe",
      "parameters",
      "million MACs",
      "accuracy",
      "95 % interval",
      "leak-free",
      "loss",
      against,
      "p (images)",
      "p (seeds)",
      "images/s",
      "minutes",
    ),
    tuple(rows),
  )


def losses(recipes: Sequence[Recipe]) -> Table:
  """Training and validation loss of the best epoch (Pan's Table 1)."""
  return Table(
    "losses",
    "Loss of the best epoch (by validation)",
    ("recipe", "training loss", "validation loss", "best epoch"),
    tuple(
      (
        recipe.name,
        recipe.figure(lambda o: o.at_best("train_loss")).format(".4f"),
        recipe.figure(lambda o: o.at_best("validation_loss")).format(".4f"),
        recipe.figure(lambda o: float(np.mean(o.best_epochs))).format(".0f"),
      )
      for recipe in recipes
    ),
  )


def scores(recipes: Sequence[Recipe], split: str) -> Table:
  """Accuracy and averages over classes (Pan's Table 2)."""
  of: dict[str, Callable[[Scores], float]] = {
    "accuracy": lambda scores: scores.accuracy,
    "macro precision": lambda scores: scores.macro.precision,
    "macro recall": lambda scores: scores.macro.recall,
    "macro F1": lambda scores: scores.macro.f1,
    "weighted precision": lambda scores: scores.weighted.precision,
    "weighted recall": lambda scores: scores.weighted.recall,
    "weighted F1": lambda scores: scores.weighted.f1,
  }
  rows = [
    (recipe.name, *(_percent(recipe, value) for value in of.values()))
    for recipe in recipes
  ]
  return Table(
    "scores",
    f"Scores on {split} in percent",
    ("recipe", *of),
    tuple(rows),
  )


def per_class(recipes: Sequence[Recipe], split: str) -> Table:
  """Recall and one-vs-rest accuracy of each class (Sutton's matrices)."""
  names = recipes[0].outcomes[0].class_names
  kinds: dict[str, Callable[[ClassScores], float]] = {
    "recall": lambda one: one.recall,
    "one-vs-rest accuracy": lambda one: one.accuracy,
  }
  rows = []
  for recipe in recipes:
    if recipe.outcomes[0].class_names != names:
      continue  # Another task: see its own report.
    for label, of in kinds.items():
      cells = [
        _percent(recipe, functools.partial(_of_class, k, of))
        for k in range(len(names))
      ]
      rows.append((f"{recipe.name}, {label}", *cells))
  return Table(
    "per_class",
    f"Each class on {split}, in percent",
    ("recipe", *names),
    tuple(rows),
  )


def _of_class(k: int, of: Callable[[ClassScores], float], one: Scores) -> float:
  return of(one.per_class[k])


def _percent(recipe: Recipe, of: Callable[[Scores], float]) -> str:
  return recipe.figure(lambda one: of(one.scores)).format(".2f", 100)


def _interval(interval: Interval, form: str) -> str:
  return f"[{100 * interval.low:{form}}, {100 * interval.high:{form}}]"


def _p(p: float) -> str:
  if math.isnan(p):
    return "-"
  return "< 0.001" if p < 0.001 else f"{p:.3f}"
