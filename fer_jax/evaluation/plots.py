"""Pictures of scores: confusion matrix, calibration, classes.

Each function returns a figure of its own, on a white page or a dark one; no
state of pyplot is touched. `to_png` makes it bytes.
"""

import dataclasses
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.legend import Legend

from fer_jax.evaluation.calibration import Calibration
from fer_jax.evaluation.scorecard import Scores

_DPI = 150


@dataclasses.dataclass(frozen=True)
class _Theme:
  """Colours of a page.

  Blue and vermilion tell apart in every kind of colour vision, and in grey
  (Okabe and Ito 2008, "Color Universal Design").
  """

  page: str
  ink: str
  muted: str
  grid: str
  blue: str
  vermilion: str
  grey: str
  ramp: tuple[str, ...]  # from a share of 0 to one of 1

  @property
  def colormap(self) -> Colormap:
    return LinearSegmentedColormap.from_list("share", self.ramp)


_LIGHT = _Theme(
  page="#FFFFFF",
  ink="#333333",
  muted="#757575",
  grid="#E3E3E3",
  blue="#0072B2",
  vermilion="#D55E00",
  grey="#A8A8A8",
  ramp=("#F4F7FA", "#8FC1DF", "#0072B2", "#00456F"),
)
_DARK = _Theme(
  page="#14171A",
  ink="#E8E8E8",
  muted="#9299A1",
  grid="#30363D",
  blue="#4BA3DB",
  vermilion="#F0803C",
  grey="#6E767F",
  ramp=("#1D2228", "#124E73", "#2F8FCB", "#9AD4F5"),
)


def confusion_matrix(
  counts: Int[np.ndarray, "k k"],
  class_names: Sequence[str],
  normalised: bool = True,
  title: str = "",
  *,
  dark: bool = False,
) -> Figure:
  """Draws what is taken for what.

  The colour is always the share of the true class, so that a rare class shows
  as well as a frequent one.

  Args:
    counts: rows are true classes, columns predicted ones.
    class_names: of rows and columns; `scores.reorder` changes the order.
    normalised: the numbers are per cent of the true class, not counts.
    title: a line above.
    dark: for a dark page.
  """
  theme, counts = _theme(dark), np.asarray(counts)
  num_classes = len(class_names)
  totals = counts.sum(axis=1, keepdims=True)
  shares = counts / np.maximum(totals, 1)
  side = max(0.62 * num_classes, 3.1)
  # In counts, the colour says what the number does not, and wants a scale.
  figure = _figure(side + (1.5 if normalised else 2.1), side + 1.2, theme)
  axes = figure.subplots()
  mesh = axes.pcolormesh(
    shares,
    cmap=theme.colormap,
    vmin=0,
    vmax=1,
    edgecolors=theme.page,
    linewidth=1.5,
  )
  for row, column in np.ndindex(num_classes, num_classes):
    count, share = counts[row, column], shares[row, column]
    text = f"{100 * share:.1f}" if normalised and count else f"{count:,}"
    if normalised and not totals[row]:
      text = "-"
    axes.text(
      column + 0.5,
      row + 0.5,
      text,
      ha="center",
      va="center",
      fontsize=9 if len(text) < 6 else 7.5,
      fontweight="bold" if row == column else "normal",
      color=_readable(theme.colormap(share), theme, muted=not count),
    )
  places = np.arange(num_classes) + 0.5
  rows = list(class_names)
  if normalised:
    rows = [
      f"{name} ({n:,})" for name, n in zip(rows, totals[:, 0], strict=True)
    ]
  slanted = max(map(len, class_names)) * 0.075 > side / num_classes
  axes.set_xticks(
    places,
    class_names,
    rotation=40 if slanted else 0,
    ha="right" if slanted else "center",
    rotation_mode="anchor",
  )
  axes.set_yticks(places, rows)
  axes.set(aspect="equal", xlabel="Predicted class")
  axes.set_ylabel("True class (images)" if normalised else "True class")
  axes.invert_yaxis()
  _style(axes, theme, grid="none")
  axes.tick_params(length=0, labelsize=8.5)
  axes.spines[:].set_visible(False)
  if normalised:
    _title(axes, title, "per cent of the true class", theme)
  else:
    _title(axes, title, "images", theme)
    bar = figure.colorbar(mesh, ax=axes, shrink=0.6, aspect=18, pad=0.03)
    bar.set_label("share of the true class", color=theme.ink, fontsize=8.5)
    bar.ax.tick_params(labelsize=7.5, colors=theme.ink, length=0)
    bar.ax.yaxis.set_major_formatter(_percent)
    bar.outline.set_visible(False)  # type: ignore[operator]
  return figure


def reliability_diagram(
  calibration: Calibration, title: str = "", *, dark: bool = False
) -> Figure:
  """Draws how often predictions of each confidence are right.

  Below stands how many predictions have that confidence: a bin of few images
  says little.

  Args:
    calibration: `Scores.calibration`.
    title: a line above.
    dark: for a dark page.
  """
  theme = _theme(dark)
  bins = [one for one in calibration.bins if one.count]
  lows = [one.low for one in bins]
  widths = [one.high - one.low for one in bins]
  accuracies = np.array([one.accuracy for one in bins])
  confidences = np.array([one.confidence for one in bins])
  counts = np.array([one.count for one in bins])

  figure = _figure(5.2, 5.6, theme)
  upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
  edges: dict[str, Any] = {
    "align": "edge",
    "edgecolor": theme.page,
    "linewidth": 1,
  }
  upper.bar(
    lows, accuracies, widths, color=theme.blue, label="accuracy", **edges
  )
  upper.bar(
    lows,
    confidences - accuracies,
    widths,
    bottom=accuracies,
    align="edge",
    color=(*to_rgb(theme.vermilion), 0.18),
    edgecolor=theme.vermilion,
    linewidth=0.9,
    label="gap to the mean confidence",
  )
  upper.plot(
    [0, 1],
    [0, 1],
    color=theme.ink,
    linewidth=1,
    linestyle=(0, (4, 3)),
    label="perfect calibration",
  )
  upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="Accuracy")
  legend = _legend(upper, theme, loc="upper left")
  legend.set_title(
    f"ECE {calibration.error:.2%}  ({len(calibration.bins)} bins)"
  )
  legend.get_title().set(fontsize=9.5, fontweight="bold", color=theme.ink)
  legend.set_alignment("left")

  lower.bar(lows, counts, widths, color=theme.grey, **edges)
  for name, values, color in (
    ("accuracy", accuracies, theme.blue),
    ("mean confidence", confidences, theme.vermilion),
  ):
    mean = float(np.average(values, weights=counts))
    lower.axvline(mean, color=color, linewidth=1.6, label=f"{name} {mean:.1%}")
  lower.set(xlabel="Confidence (highest probability)", ylabel="Images")
  lower.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
  _legend(lower, theme, loc="upper left")
  for axes in (upper, lower):
    _style(axes, theme, grid="both")
  upper.tick_params(labelbottom=False)
  upper.yaxis.set_major_formatter(_percent)
  lower.xaxis.set_major_formatter(_percent)
  _title(upper, title, "", theme)
  return figure


def per_class_bars(
  scores: Scores, title: str = "", *, dark: bool = False
) -> Figure:
  """Draws recall, precision and F1 of each class, and their macro averages.

  Args:
    scores: of a split.
    title: a line above.
    dark: for a dark page.
  """
  theme = _theme(dark)
  groups = [(one.name, one, f"{one.support:,}") for one in scores.per_class]
  groups.append(("macro average", scores.macro, f"{scores.num_images:,}"))
  # The averages stand a little apart.
  places = np.arange(len(groups), dtype=float)
  places[-1] += 0.25
  figure = _figure(7, 1.2 + 0.58 * len(groups), theme)
  axes = figure.subplots()
  for i, (name, color) in enumerate(
    (
      ("recall", theme.blue),
      ("precision", theme.vermilion),
      ("f1", theme.grey),
    )
  ):
    values = [getattr(group, name) for _, group, _ in groups]
    bars = axes.barh(
      places + 0.26 * (i - 1),
      np.nan_to_num(values),
      height=0.24,
      color=color,
      label="F1" if name == "f1" else name,
    )
    axes.bar_label(
      bars,
      ["-" if math.isnan(value) else f"{100 * value:.1f}" for value in values],
      padding=3,
      fontsize=7.5,
      color=theme.ink,
    )
  axes.set_yticks(places, [f"{name} ({count})" for name, _, count in groups])
  axes.axhline(places[-1] - 0.625, color=theme.muted, linewidth=0.6)
  axes.set(xlim=(0, 1.08), ylim=(places[-1] + 0.5, -0.5))
  axes.set_xticks(np.linspace(0, 1, 6))
  axes.set_ylabel("Class (images)")
  _style(axes, theme, grid="x")
  axes.tick_params(axis="y", length=0, labelsize=8.5)
  axes.xaxis.set_major_formatter(_percent)
  axes.spines["left"].set_visible(False)
  axes.legend(
    loc="lower right",
    bbox_to_anchor=(1, 1),
    ncols=3,
    fontsize=8.5,
    labelcolor=theme.ink,
    frameon=False,
    borderaxespad=0.2,
  )
  _title(axes, title, "", theme)
  return figure


def to_png(figure: Figure) -> bytes:
  """The picture as a PNG, the same bytes for the same figure."""
  picture = io.BytesIO()
  FigureCanvasAgg(figure).print_png(picture, metadata={"Software": None})
  return picture.getvalue()


def _theme(dark: bool) -> _Theme:
  return _DARK if dark else _LIGHT


def _figure(width: float, height: float, theme: _Theme) -> Figure:
  """A page of inches, with the canvas that draws it."""
  figure = Figure(
    figsize=(width, height),
    dpi=_DPI,
    facecolor=theme.page,
    layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08),
  )
  FigureCanvasAgg(figure)
  return figure


def _style(axes: Axes, theme: _Theme, grid: str) -> None:
  """What all pictures share: light grid, no box, names taken as they are."""
  axes.set_facecolor(theme.page)
  for axis in (axes.xaxis, axes.yaxis):
    axis.label.set(fontsize=9, color=theme.ink)
  axes.tick_params(labelsize=8, colors=theme.ink, length=2.5, width=0.6)
  if grid != "none":
    axes.grid(axis=grid, color=theme.grid, linewidth=0.6)
  axes.set_axisbelow(True)
  for side, spine in axes.spines.items():
    spine.set(
      visible=side in ("left", "bottom"), color=theme.muted, linewidth=0.6
    )
  for text in (*axes.get_xticklabels(), *axes.get_yticklabels()):
    text.set_parse_math(False)  # a "$" in a class's name is no formula


def _title(axes: Axes, title: str, note: str, theme: _Theme) -> None:
  """A line above, and under it in small what the numbers are."""
  figure = axes.get_figure(root=True)
  assert figure is not None
  if title:
    figure.suptitle(title, fontsize=11, color=theme.ink, parse_math=False)
  if note:
    axes.set_title(note, fontsize=8.5, color=theme.muted)


def _legend(axes: Axes, theme: _Theme, loc: str) -> Legend:
  legend = axes.legend(
    loc=loc, fontsize=8, labelcolor=theme.ink, framealpha=0.85
  )
  legend.get_frame().set(facecolor=theme.page, edgecolor="none")
  return legend


def _percent(share: float, _: object) -> str:
  return f"{100 * share:.0f}%"


def _readable(color: tuple[float, ...], theme: _Theme, muted: bool) -> str:
  """Ink on this colour: dark or light, whichever has more contrast."""
  ground = _luminance(color)
  inks = ("#1A1A1A", "#FFFFFF")
  ink = max(inks, key=lambda ink: _contrast(_luminance(to_rgb(ink)), ground))
  return theme.muted if muted else ink


def _contrast(one: float, other: float) -> float:
  """Ratio of two luminances, 1 to 21 (WCAG 2.2, "contrast ratio")."""
  return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def _luminance(color: tuple[float, ...]) -> float:
  """Relative luminance of sRGB (WCAG 2.2, "relative luminance")."""
  linear = (
    c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
    for c in color[:3]
  )
  return sum(
    w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
  )
