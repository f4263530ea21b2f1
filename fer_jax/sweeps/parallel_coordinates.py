"""Parallel coordinates: a line a trial, from its values to its score."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from fer_jax.evaluation.plot_theme import Theme, theme_of
from fer_jax.sweeps import trials
from fer_jax.sweeps.plan import Plan
from fer_jax.sweeps.space import (
  Choice,
  LogUniform,
  Parameter,
  format_value,
  short_names,
)
from fer_jax.sweeps.sweep_plots import Color, score_colors, trial_color
from fer_jax.sweeps.trials import Trial, format_score

_STRIP = 0.035  # width of the scores' scale, between neighbouring axes 1


def parallel(
  plan: Plan, found: Sequence[Trial], *, dark: bool = False
) -> Figure:
  """Draws all trials that have a score; the best is at the top.

  Lines through the same value of a choice lie side by side, the best on top.

  Args:
    plan: of the sweep.
    found: its trials.
    dark: for a dark page.
  """
  theme = theme_of(dark)
  fields = list(plan.space.parameters)
  scored = [one for one in found if one.score is not None]
  figure = theme.figure(min(3.4 + 1.9 * len(fields), 12.0), 4.6)
  axes = figure.subplots()
  axes.set_axis_off()
  axes.set(xlim=(-0.42, len(fields) + 0.3), ylim=(-0.09, 1.17))
  scale = _Scale(plan, scored)
  color_of = score_colors(plan, found, theme)
  columns = [_places(plan, field, scored, scale) for field in fields]
  best = trials.best(found, plan.sign)
  for rank, one in enumerate(reversed(trials.by_score(scored, plan.sign))):
    heights = [column[one.number] for column in columns]
    is_best = best is not None and one.number == best.number
    axes.add_patch(
      PathPatch(
        _curve([*heights, scale.place(one)]),
        facecolor="none",
        edgecolor=trial_color(one, best, color_of, theme),
        linewidth=3.2 if is_best else 1.8,
        linestyle="solid" if one.state == trials.COMPLETE else (0, (3, 2)),
        alpha=1.0 if is_best else 0.85,
        capstyle="round",
        zorder=2 + rank / (len(scored) + 1),
      )
    )
  names = short_names(fields)
  for x, field in enumerate(fields):
    _axis(axes, x, names[field], _ticks(plan.space.parameters[field]), theme)
  _score_axis(axes, len(fields), plan, scale, color_of, theme)
  if best is not None:
    score = format_score(best.score, plan.metric)
    theme.title(figure, f"Best of {len(found)}: trial {best.number}, {score}")
  return figure


class _Scale:
  """Where scores lie on their axis, the best at 1.

  Attributes:
    low: the score at the foot.
    high: the score at the top.
  """

  def __init__(self, plan: Plan, scored: Sequence[Trial]):
    scores = [one.score for one in scored if one.score is not None] or [0.0]
    worst, best = sorted(
      (min(scores), max(scores)), key=lambda s: plan.sign * s
    )
    if worst == best:
      worst -= plan.sign * (abs(best) or 1.0) * 0.1
    self.low, self.high = worst, best

  def place(self, trial: Trial) -> float:
    """Of a trial's score."""
    assert trial.score is not None
    return self.of(trial.score)

  def of(self, score: float) -> float:
    """Of any score."""
    return (score - self.low) / (self.high - self.low)


def _places(
  plan: Plan, field: str, scored: Sequence[Trial], scale: _Scale
) -> dict[int, float]:
  """Where each trial's line passes a field's axis, by trial."""
  parameter = plan.space.parameters[field]
  places = {one.number: _place(parameter, one.point[field]) for one in scored}
  if not isinstance(parameter, Choice):
    return places
  # Half the way to the neighbouring value, at most, is used by all lines.
  reach = min(0.06, 0.3 / (len(parameter.values) - 1))
  for place in set(places.values()):
    there = [one for one in scored if places[one.number] == place]
    there.sort(key=scale.place)
    spread = np.linspace(-reach, reach, len(there)) if len(there) > 1 else [0.0]
    for one, offset in zip(there, spread, strict=True):
      places[one.number] = place + float(offset)
  return places


def _place(parameter: Parameter, value: Any) -> float:
  if isinstance(parameter, Choice):
    return _in_order(parameter).index(value) / (len(parameter.values) - 1)
  low, high = parameter.ends
  if isinstance(parameter, LogUniform):
    return math.log(value / low) / math.log(high / low)
  return (value - low) / (high - low)


def _in_order(choice: Choice) -> list[Any]:
  """Numbers from the foot up, other values as they are listed, from the top."""
  values = list(choice.values)
  if all(type(value) in (int, float) for value in values):
    return sorted(values)
  return values[::-1]


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
  """Heights on an axis, and what stands there."""
  if isinstance(parameter, Choice):
    values = _in_order(parameter)
  elif isinstance(parameter, LogUniform):
    first = math.ceil(math.log10(parameter.low) - 1e-9)
    last = math.floor(math.log10(parameter.high) + 1e-9)
    values = [10.0**power for power in range(first, last + 1)]
    if len(values) < 2:
      values = np.geomspace(parameter.low, parameter.high, 4).tolist()
  else:
    low, high = parameter.ends
    found = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    values = [float(value) for value in found if low <= value <= high]
  return [(_place(parameter, value), format_value(value)) for value in values]


def _curve(heights: Sequence[float]) -> Path:
  """A smooth line through a height on every axis, level where it meets one."""
  points, codes = [(0.0, heights[0])], [Path.MOVETO]
  for x, (here, there) in enumerate(zip(heights, heights[1:], strict=False)):
    points += [(x + 0.45, here), (x + 0.55, there), (x + 1, there)]
    codes += [Path.CURVE4] * 3
  return Path(points, codes)


def _axis(
  axes: Axes, x: float, name: str, ticks: list[tuple[float, str]], theme: Theme
) -> None:
  axes.plot([x, x], [-0.07, 1.07], color=theme.muted, linewidth=1, zorder=4)
  for place, text in ticks:
    axes.plot(
      [x - 0.012, x], [place] * 2, color=theme.muted, linewidth=1, zorder=4
    )
    axes.text(
      x - 0.03,
      place,
      text,
      ha="right",
      va="center",
      fontsize=8.5,
      color=theme.ink,
      zorder=5,
      parse_math=False,
      bbox={
        "boxstyle": "round,pad=0.15",
        "facecolor": theme.page,
        "edgecolor": "none",
        "alpha": 0.8,
      },
    )
  axes.text(
    x,
    1.11,
    name,
    ha="center",
    va="bottom",
    fontsize=9.5,
    fontweight="bold",
    color=theme.ink,
    parse_math=False,
  )


def _score_axis(
  axes: Axes,
  x: float,
  plan: Plan,
  scale: _Scale,
  color_of: Callable[[float], Color],
  theme: Theme,
) -> None:
  """The scale of scores, in the colours of the lines that end there."""
  scores = np.linspace(scale.low, scale.high, 128)
  colors = np.array([color_of(score) for score in scores])[:, None]
  axes.imshow(
    colors,
    extent=(x, x + _STRIP, 0, 1),
    origin="lower",
    aspect="auto",
    zorder=4,
  )
  low, high = sorted((scale.low, scale.high))
  for tick in MaxNLocator(6).tick_values(low, high):
    if low <= tick <= high:
      axes.text(
        x + _STRIP + 0.025,
        scale.of(tick),
        f"{100 * tick:.4g}%" if "accuracy" in plan.metric else f"{tick:.4g}",
        ha="left",
        va="center",
        fontsize=8.5,
        color=theme.ink,
      )
  axes.text(
    x,
    1.11,
    plan.metric.replace("_", " "),
    ha="center",
    va="bottom",
    fontsize=9.5,
    fontweight="bold",
    color=theme.ink,
  )
