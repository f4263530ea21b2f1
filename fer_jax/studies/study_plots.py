"""The plots of a study, each for a light or a dark page."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fer_jax.evaluation import plots
from fer_jax.evaluation.confusion import reorder
from fer_jax.plot_theme import percent, theme_of
from fer_jax.studies.comparison import Recipe

_EARLY_EPOCHS = 5  # Their losses may be cut off.
_LEGEND_WIDTH = 125  # characters; a line and the gaps beside it count as 7
_QUANTITIES = ("loss", "accuracy")
_LINE_STYLES = ("-", (0, (4, 2)), ":")
Curves = Mapping[str, Sequence[float | None]]  # what `curves_of` returns


def curves_of(epochs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
  """Returns what `curves` draws of a run, by name.

  Args:
    epochs: records of the epochs that were evaluated.

  Returns:
    `epoch`, from 1, and loss and accuracy of both splits, such as `train_loss`.
  """
  names = [f"{s}_{q}" for s in ("train", "validation") for q in _QUANTITIES]
  return {name: [epoch[name] for epoch in epochs] for name in ("epoch", *names)}


def curves(
  runs: Mapping[str, Sequence[Curves]], quantity: str, *, dark: bool = False
) -> Figure:
  """Draws loss or accuracy of recipes over the epochs (Pan's Figure 2).

  Training is on the left, validation on the right. For several seeds or folds
  the line is the mean of the runs that reached an epoch, the band their range.

  Args:
    runs: of each recipe, by its name: the curves of each seed and fold. Those
      without `epoch` have one point per epoch.
    quantity: "loss" or "accuracy".
    dark: for a dark page.
  """
  theme = theme_of(dark)
  # Each color comes again in another style of line, so that no two are equal.
  looks = list(itertools.product(_LINE_STYLES, theme.series))
  figure = theme.figure(8.2, 4.4)
  panels = figure.subplots(1, 2, sharey=True)
  for axes, split in zip(panels, ("train", "validation"), strict=True):
    for name, (style, color) in zip(runs, itertools.cycle(looks)):
      epochs, low, mean, high = _band(runs[name], f"{split}_{quantity}")
      few = len(mean) <= 15
      axes.plot(
        epochs,
        mean,
        color=color,
        linestyle=style,
        linewidth=1.6,
        marker="o" if few else None,
        markersize=3.5,
        label=name,
      )
      if len(runs[name]) > 1:
        axes.fill_between(epochs, low, high, color=color, alpha=0.18, lw=0)
    theme.style(axes, xgrid=True, ygrid=True)
    title = "Training" if split == "train" else "Validation"
    axes.set_title(title, loc="left", fontsize=10, color=theme.ink)
    axes.set_xlabel("Epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if quantity == "accuracy":
      axes.yaxis.set_major_formatter(percent)
  panels[0].set_ylabel(quantity.capitalize())
  if quantity == "loss":
    _cut_off(panels[0], panels[1])
  handles, labels = panels[0].get_legend_handles_labels()
  columns = _LEGEND_WIDTH // (max(map(len, runs)) + 7)
  figure.legend(
    handles,
    labels,
    loc="outside upper center",
    ncols=min(len(runs), max(1, columns), 5),
    fontsize=8.5,
    labelcolor=theme.ink,
    frameon=False,
  )
  return figure


def accuracies(
  recipes: Sequence[Recipe], split: str, *, dark: bool = False
) -> Figure:
  """Draws accuracy with its interval, and a small dot per seed."""
  theme = theme_of(dark)
  figure = theme.figure(7, 1.2 + 0.5 * len(recipes))
  axes = figure.subplots()
  for place, recipe in enumerate(recipes):
    accuracy = recipe.figure(lambda one: one.scores.accuracy)
    interval = recipe.interval
    color = theme.series[place % len(theme.series)]
    axes.plot(
      [interval.low, interval.high], [place, place], color=color, linewidth=2
    )
    if len(accuracy.values) > 1:
      axes.plot(
        accuracy.values,
        [place + 0.2] * len(accuracy.values),
        linestyle="none",
        marker=".",
        markersize=5,
        color=theme.muted,
      )
    axes.plot([accuracy.mean], [place], marker="o", markersize=7, color=color)
    axes.annotate(
      accuracy.format(".1f", 100),
      (accuracy.mean, place),
      (0, 8),
      textcoords="offset points",
      ha="center",
      fontsize=8,
      color=theme.ink,
    )
  axes.set_yticks(range(len(recipes)), [recipe.name for recipe in recipes])
  axes.set_ylim(len(recipes) - 0.5, -0.7)
  axes.set_xlabel(f"Accuracy on {split}, 95 % interval")
  theme.style(axes, xgrid=True, ygrid=False)
  axes.tick_params(axis="y", length=0, labelsize=9)
  axes.xaxis.set_major_formatter(percent)
  axes.spines["left"].set_visible(False)
  return figure


def cost(
  recipes: Sequence[Recipe], split: str, *, dark: bool = False
) -> Figure:
  """Draws accuracy against training speed; dot area shows parameters."""
  theme = theme_of(dark)
  figure = theme.figure(6.4, 4.2)
  axes = figure.subplots()
  most = max(recipe.outcomes[0].num_parameters for recipe in recipes)
  for place, recipe in enumerate(recipes):
    color = theme.series[place % len(theme.series)]
    accuracy = recipe.figure(lambda one: one.scores.accuracy).mean
    speed = recipe.figure(lambda one: one.images_per_second).mean
    size = recipe.outcomes[0].num_parameters / most
    axes.scatter(
      [speed], [accuracy], s=60 + 540 * size, color=color, alpha=0.75, lw=0
    )
    axes.annotate(
      f"{recipe.name} ({recipe.outcomes[0].num_parameters / 1e6:.1f} M)",
      (speed, accuracy),
      # Alternately above and below, so that labels do not overlap.
      (0, (7 + 12 * math.sqrt(size)) * (-1) ** place),
      textcoords="offset points",
      ha="center",
      va="bottom" if place % 2 == 0 else "top",
      fontsize=8,
      color=theme.ink,
    )
  axes.margins(0.25)
  axes.set_xlim(left=0)
  axes.set_xlabel("Training speed, images/s (area: parameters)")
  axes.set_ylabel(f"Accuracy on {split}")
  theme.style(axes, xgrid=True, ygrid=True)
  axes.yaxis.set_major_formatter(percent)
  return figure


def confusion(recipe: Recipe, *, dark: bool = False) -> Figure:
  """Draws the confusion matrix of a recipe, all seeds pooled.

  Classes are in alphabetical order, as in papers on FER2013.
  """
  names = recipe.outcomes[0].class_names
  total = sum(outcome.scores.confusion for outcome in recipe.outcomes)
  order = sorted(names)
  counts = reorder(np.asarray(total), names, order)
  return plots.confusion_matrix(counts, order, True, recipe.name, dark=dark)


def _cut_off(train: Axes, validation: Axes) -> None:
  """Limits the axis to exclude early validation losses far above the others.

  Early BatchNorm statistics cause them, and they would flatten the rest. Losses
  that rise later show overfitting, and are drawn.
  """
  highest = max(
    float(np.nanmax(np.asarray(line.get_ydata()))) for line in train.lines
  )
  lines = [np.column_stack(line.get_data()) for line in validation.lines]
  late = [line[line[:, 0] > _EARLY_EPOCHS, 1] for line in lines]
  shown = 1.05 * max((np.nanmax(y) for y in late if y.size), default=0.0)
  limit, (_, top) = max(1.3 * highest, shown), validation.get_ylim()
  if top <= limit:
    return
  validation.set_ylim(top=limit)
  for line, points in zip(validation.lines, lines, strict=True):
    for epoch, loss in points.tolist():
      if loss > limit:
        validation.annotate(
          f"{loss:.1f}",
          (epoch, limit),
          (6, -10),
          textcoords="offset points",
          fontsize=8,
          color=line.get_color(),
        )


def _band(
  runs: Sequence[Curves], name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Returns epochs, and minimum, mean and maximum of the runs at each."""
  columns: dict[Any, list[float]] = {}
  for run in runs:
    values = run[name]
    epochs = run.get("epoch", range(1, len(values) + 1))
    for epoch, value in zip(epochs, values, strict=True):
      column = columns.setdefault(epoch, [])
      column.append(math.nan if value is None else value)
  low, mean, high = zip(
    *((min(c), float(np.mean(c)), max(c)) for _, c in sorted(columns.items())),
    strict=True,
  )
  return (
    np.array(sorted(columns)),
    np.array(low),
    np.array(mean),
    np.array(high),
  )
