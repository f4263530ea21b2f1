"""Plots a training run: `curves.png`."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fer_jax.errors import UserError
from fer_jax.files import atomic_write
from fer_jax.plot_theme import percent, theme_of, to_png

_THEME = theme_of(dark=False)
_COLORS = {"train": _THEME.blue, "validation": _THEME.vermilion}


def draw(
  records: Sequence[Mapping[str, Any]],
  path: str | os.PathLike[str],
  title: str = "",
) -> None:
  """Plots loss, accuracy and learning rate by epoch, 1200 x 450 pixels.

  Args:
    records: as `metric_writer.read` returns them; those of kind "epoch" are
      plotted, and the last one with `best` is marked.
    path: the PNG to write, atomically.
    title: printed above the plots.

  Raises:
    UserError: there is no epoch to plot, or the file cannot be written.
  """
  epochs = [record for record in records if record["kind"] == "epoch"]
  if not epochs:
    raise UserError(f"no epoch to plot in {path}: train for at least one epoch")
  figure = _THEME.figure(8, 3)
  _THEME.title(figure, title)
  loss, accuracy, rate = figure.subplots(1, 3, width_ratios=(3, 3, 1.5))
  _panel(loss, epochs, "loss", "Loss", "{:.3f}")
  _panel(accuracy, epochs, "accuracy", "Accuracy", "{:.1%}")
  accuracy.yaxis.set_major_formatter(percent)
  _learning_rate(rate, epochs)
  for axes in (loss, accuracy, rate):
    _style(axes, epochs, num_ticks=4 if axes is rate else 6)
  _save(figure, Path(path))


def _panel(
  axes: Axes,
  epochs: Sequence[Mapping[str, Any]],
  quantity: str,
  label: str,
  number: str,
) -> None:
  """Plots training and validation, and the best epoch with its value."""
  for split, color in _COLORS.items():
    axes.plot(
      _values(epochs, "epoch"),
      _values(epochs, f"{split}_{quantity}"),
      color=color,
      linewidth=1.3,
      label=split,
      **_marker(len(epochs)),
    )
  best = [record for record in epochs if record.get("best")]
  if best and best[-1].get(f"validation_{quantity}") is not None:
    epoch, value = best[-1]["epoch"], best[-1][f"validation_{quantity}"]
    axes.plot(
      [epoch],
      [value],
      linestyle="none",
      marker="o",
      markersize=5.5,
      color=_COLORS["validation"],
      markeredgecolor="white",
      markeredgewidth=0.7,
      zorder=3,
      label=f"best: {number.format(value)} (epoch {epoch})",
    )
  axes.set_ylabel(label)
  legend = axes.legend(
    loc="best", fontsize=7, labelcolor=_THEME.ink, framealpha=0.85
  )
  legend.get_frame().set_edgecolor("none")


def _learning_rate(axes: Axes, epochs: Sequence[Mapping[str, Any]]) -> None:
  """Plots the learning rate from 0, in units of a power of ten."""
  values = _values(epochs, "learning_rate")
  highest = max(filter(math.isfinite, values), default=0.0)
  power = math.floor(math.log10(highest)) if highest > 0 else 0
  axes.plot(
    _values(epochs, "epoch"),
    [value / 10.0**power for value in values],
    color=_THEME.ink,
    linewidth=0.9,
    **_marker(len(epochs)),
  )
  if highest > 0:
    axes.set_ylim(0, 1.08 * highest / 10.0**power)
  unit = rf" ($\times 10^{{{power}}}$)" if power else ""
  axes.set_ylabel(f"Learning rate{unit}")


def _style(
  axes: Axes, epochs: Sequence[Mapping[str, Any]], num_ticks: int
) -> None:
  """Sets the style of a panel: that of all plots, and whole epochs."""
  first, last = epochs[0]["epoch"], epochs[-1]["epoch"]
  margin = max(0.03 * (last - first), 0.5 if last == first else 0.15)
  axes.set_xlim(first - margin, last + margin)
  axes.set_xlabel("Epoch")
  axes.xaxis.set_major_locator(
    MaxNLocator(nbins=num_ticks, integer=True, min_n_ticks=1)
  )
  _THEME.style(axes, xgrid=True, ygrid=True)


def _marker(num_epochs: int) -> dict[str, Any]:
  """Returns a marker for few points: a single one has no visible line."""
  return {"marker": "o", "markersize": 3} if num_epochs <= 10 else {}


def _values(epochs: Sequence[Mapping[str, Any]], key: str) -> list[float]:
  """Returns a column; missing and non-finite values leave a gap."""
  return [
    math.nan if record.get(key) is None else record[key] for record in epochs
  ]


def _save(figure: Figure, path: Path) -> None:
  """Writes a PNG atomically."""
  picture = to_png(figure)
  try:
    with atomic_write(path) as draft:
      draft.write_bytes(picture)
  except OSError as e:
    raise UserError(
      f"cannot write {path}: {e.strerror or e}; free some space or use another"
      " folder"
    ) from e
