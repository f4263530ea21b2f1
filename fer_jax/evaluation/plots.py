"""Plots of scores: confusion matrix, reliability diagram, per-class bars.

Each function returns a new figure, for a light or a dark page, without using
pyplot's global state.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from fer_jax import fonts
from fer_jax.evaluation.calibration import Bin, Calibration
from fer_jax.evaluation.scorecard import Averages, ClassScores, Scores
from fer_jax.plot_theme import Theme, percent, readable, theme_of

# Bins with fewer images are drawn pale: their accuracy is mostly chance.
FEW = 10
_CELL, _SMALLEST = 0.62, 3.1  # sides of a confusion matrix, in inches


def confusion_matrix(
  counts: Int[np.ndarray, "k k"],
  class_names: Sequence[str],
  normalized: bool = True,
  title: str = "",
  *,
  dark: bool = False,
) -> Figure:
  """Draws a confusion matrix.

  The color is always the fraction of the true class, so that a rare class is
  as visible as a frequent one.

  Args:
    counts: rows are true classes, columns predicted classes.
    class_names: names of rows and columns, in the order of `counts`.
    normalized: whether the numbers are percent of the true class, else counts.
    title: title of the figure; "" for none.
    dark: whether to draw for a dark page.
  """
  theme = theme_of(dark)
  side = max(_CELL * len(class_names), _SMALLEST)
  # With counts, the color needs a scale of its own.
  figure = theme.figure(side + (1.6 if normalized else 2.1), side + 1.1)
  axes = figure.subplots()
  mesh = draw_confusion(axes, counts, class_names, theme, normalized)
  axes.set_title(
    "percent of the true class" if normalized else "number of images",
    fontsize=8.5,
    color=theme.muted,
    pad=5,
  )
  if not normalized:
    bar = figure.colorbar(mesh, ax=axes, shrink=0.6, aspect=18, pad=0.03)
    bar.set_label("fraction of the true class", color=theme.ink, fontsize=8.5)
    bar.ax.tick_params(labelsize=7.5, colors=theme.ink, length=0)
    bar.ax.yaxis.set_major_formatter(percent)
    bar.outline.set_visible(False)
  theme.title(figure, title)
  return figure


def draw_confusion(
  axes: Axes,
  counts: Int[np.ndarray, "k k"],
  class_names: Sequence[str],
  theme: Theme,
  normalized: bool = True,
) -> QuadMesh:
  """Draws a confusion matrix on axes, and returns its colored cells."""
  counts = np.asarray(counts)
  class_names = fonts.drawn_names(class_names)
  totals = counts.sum(axis=1)
  fractions = counts / np.maximum(totals, 1)[:, None]
  size = len(class_names)
  mesh = axes.pcolormesh(
    fractions,
    cmap=theme.colormap,
    vmin=0,
    vmax=1,
    edgecolors=theme.page,
    linewidth=1.5,
  )
  for row, column in np.ndindex(size, size):
    count, fraction = counts[row, column], fractions[row, column]
    number = f"{100 * fraction:.1f}" if normalized and count else f"{count:,}"
    text = "-" if normalized and not totals[row] else number
    axes.text(
      column + 0.5,
      row + 0.5,
      text,
      ha="center",
      va="center",
      fontsize=9 if len(text) < 6 else 7.5,
      fontweight="bold" if row == column and count else "normal",
      color=readable(theme.colormap(fraction)) if count else theme.muted,
    )
  rows = list(class_names)
  if normalized:
    rows = [f"{name} ({n:,})" for name, n in zip(rows, totals, strict=True)]
  slanted = max(map(len, class_names)) * 0.075 > max(_CELL, _SMALLEST / size)
  positions = np.arange(size) + 0.5
  axes.set_xticks(
    positions,
    class_names,
    rotation=40 if slanted else 0,
    ha="right" if slanted else "center",
    rotation_mode="anchor" if slanted else "default",
  )
  axes.set_yticks(positions, rows)
  axes.set(aspect="equal", xlabel="Predicted class", ylim=(size, 0))
  axes.set_ylabel("True class (images)" if normalized else "True class")
  theme.style(axes, xgrid=False, ygrid=False)
  axes.tick_params(length=0, labelsize=8.5)
  axes.spines[:].set_visible(False)
  return mesh


def reliability_diagram(
  calibration: Calibration, *, dark: bool = False
) -> Figure:
  """Draws the accuracy over the confidence, above a histogram of the latter.

  Args:
    calibration: `Scores.calibration`.
    dark: whether to draw for a dark page.
  """
  theme = theme_of(dark)
  bins = [one for one in calibration.bins if one.count]
  figure = theme.figure(5.8, 5.6)
  upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
  _accuracies(upper, bins, theme)
  _counts(lower, bins, theme)
  for axes in (upper, lower):
    theme.style(axes, xgrid=True, ygrid=True)
    theme.legend(axes)
  upper.tick_params(labelbottom=False)
  upper.set_title(
    f"ECE {calibration.error:.2%}",
    loc="left",
    fontsize=9.5,
    fontweight="bold",
    color=theme.ink,
    pad=5,
  )
  lower.set_xlabel(
    f"Confidence (highest probability), {len(calibration.bins)} bins"
  )
  figure.align_ylabels()
  return figure


def _accuracies(axes: Axes, bins: Sequence[Bin], theme: Theme) -> None:
  """Draws bars of accuracy, lines at the mean confidence and the diagonal."""
  for label, some, alpha in (
    ("accuracy", [one for one in bins if one.count >= FEW], 1.0),
    (
      f"under {FEW} images",
      [one for one in bins if one.count < FEW],
      0.35,
    ),
  ):
    if some:
      axes.bar(
        [one.low for one in some],
        [one.accuracy for one in some],
        [one.high - one.low for one in some],
        align="edge",
        color=theme.blue,
        edgecolor=theme.page,
        linewidth=1,
        alpha=alpha,
        label=label,
      )
  axes.hlines(
    [one.confidence for one in bins],
    [one.low for one in bins],
    [one.high for one in bins],
    color=theme.vermilion,
    linewidth=2.2,
    label="mean confidence",
  )
  axes.axline((0, 0), (1, 1), color=theme.ink, linewidth=1, dashes=(4, 3))
  axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="Accuracy")
  axes.yaxis.set_major_formatter(percent)


def _counts(axes: Axes, bins: Sequence[Bin], theme: Theme) -> None:
  """Draws bars of images, and the overall accuracy and mean confidence."""
  counts = [one.count for one in bins]
  axes.bar(
    [one.low for one in bins],
    counts,
    [one.high - one.low for one in bins],
    align="edge",
    color=theme.gray,
    edgecolor=theme.page,
    linewidth=1,
  )
  for name, values, color in (
    ("accuracy", [one.accuracy for one in bins], theme.blue),
    ("mean confidence", [one.confidence for one in bins], theme.vermilion),
  ):
    mean = float(np.average(values, weights=counts))
    axes.axvline(mean, color=color, linewidth=2, label=f"{name} {mean:.1%}")
  axes.set_ylabel("Images")
  axes.yaxis.set_major_formatter(lambda y, _: f"{y:,.6g}")
  axes.xaxis.set_major_formatter(percent)


def per_class_bars(scores: Scores, *, dark: bool = False) -> Figure:
  """Draws recall, precision and F1 of each class, and their macro averages.

  Args:
    scores: scores of a split.
    dark: whether to draw for a dark page.
  """
  theme = theme_of(dark)
  classes: list[ClassScores | Averages] = [*scores.per_class, scores.macro]
  drawn = fonts.drawn_names(one.name for one in scores.per_class)
  names = [
    f"{name} ({one.support:,})"
    for name, one in zip(drawn, scores.per_class, strict=True)
  ]
  names.append(f"macro average ({scores.num_images:,})")
  positions = np.arange(len(names), dtype=float)
  positions[-1] += 0.25  # separates the averages
  figure = theme.figure(7, 1.1 + 0.58 * len(names))
  axes = figure.subplots()
  for offset, label, color, values in (
    (-0.26, "recall", theme.blue, [one.recall for one in classes]),
    (0, "precision", theme.vermilion, [one.precision for one in classes]),
    (0.26, "F1", theme.gray, [one.f1 for one in classes]),
  ):
    bars = axes.barh(
      positions + offset,
      np.nan_to_num(values),
      height=0.24,
      color=color,
      label=label,
    )
    axes.bar_label(
      bars,
      ["-" if math.isnan(value) else f"{100 * value:.1f}" for value in values],
      padding=3,
      fontsize=7.5,
      color=theme.ink,
    )
  axes.axhline(positions[-1] - 0.625, color=theme.muted, linewidth=0.6)
  axes.set_yticks(positions, names)
  axes.set(xlim=(0, 1.08), ylim=(positions[-1] + 0.5, -0.5))
  axes.set_xticks(np.linspace(0, 1, 6))
  axes.set_ylabel("Class (images)")
  theme.style(axes, xgrid=True, ygrid=False)
  axes.tick_params(axis="y", length=0, labelsize=8.5)
  axes.xaxis.set_major_formatter(percent)
  axes.spines["left"].set_visible(False)
  theme.legend(axes)
  return figure
