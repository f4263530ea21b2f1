"""The pictures of a sweep; each for a white page or a dark one."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fer_jax.evaluation.plot_theme import Theme, percent, theme_of
from fer_jax.sweeps import trials
from fer_jax.sweeps.plan import Plan
from fer_jax.sweeps.space import short_names
from fer_jax.sweeps.trials import Trial

# Colours of scores leave out the end of the ramp that is nearly the page's.
_PALEST = 0.35

Color = tuple[float, float, float, float]


def history(
  plan: Plan, found: Sequence[Trial], *, dark: bool = False
) -> Figure:
  """Draws every trial's score in their order, and the best so far as a line."""
  theme = theme_of(dark)
  figure = theme.figure(6.4, 4.0)
  axes = figure.subplots()
  complete = [one for one in found if one.state == trials.COMPLETE]
  pruned = [one for one in found if one.state == trials.PRUNED]
  if complete:
    scores = [
      plan.sign * one.score for one in complete if one.score is not None
    ]
    best = plan.sign * np.maximum.accumulate(scores)
    numbers = [one.number for one in complete]
    axes.step(
      [*numbers, max(one.number for one in found) + 0.4],
      [*best, best[-1]],
      where="post",
      color=theme.vermilion,
      linewidth=1.8,
      label="best so far",
      zorder=2,
    )
  for label, some, fill in (
    ("complete", complete, theme.blue),
    ("pruned", pruned, theme.page),
  ):
    if some:
      axes.plot(
        [one.number for one in some],
        [np.nan if one.score is None else one.score for one in some],
        linestyle="none",
        marker="o",
        markersize=7,
        color=fill,
        markeredgecolor=theme.blue if fill == theme.blue else theme.muted,
        markeredgewidth=1.2,
        label=label,
        zorder=3,
      )
  failed = [one.number for one in found if one.state == trials.FAILED]
  if failed:
    axes.plot(
      failed,
      [0.03 if plan.sign > 0 else 0.97] * len(failed),
      linestyle="none",
      marker="x",
      markersize=7,
      color=theme.muted,
      transform=axes.get_xaxis_transform(),
      label="failed",
    )
  axes.margins(y=0.12)
  axes.set_xlim(-0.5, max(one.number for one in found) + 0.5)
  axes.set_xlabel("Trial")
  axes.set_ylabel(plan.metric.replace("_", " ").capitalize())
  theme.style(axes, xgrid=False, ygrid=True)
  axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
  _format_scores(axes, plan)
  theme.legend(axes)
  return figure


def importance(shares: Mapping[str, float], *, dark: bool = False) -> Figure:
  """Draws how much of the scores' variance each field explains.

  Args:
    shares: by field, of the sum of all.
    dark: for a dark page.
  """
  theme = theme_of(dark)
  figure = theme.figure(6.4, 1.2 + 0.5 * len(shares))
  axes = figure.subplots()
  fields = sorted(shares, key=lambda field: -shares[field])
  names = short_names(fields)
  bars = axes.barh(
    range(len(fields)),
    [shares[field] for field in fields],
    height=0.6,
    color=theme.blue,
  )
  axes.bar_label(
    bars,
    [f"{shares[field]:.0%}" for field in fields],
    padding=4,
    fontsize=9,
    color=theme.ink,
  )
  axes.set_yticks(range(len(fields)), [names[field] for field in fields])
  axes.set(xlim=(0, 1.08), ylim=(len(fields) - 0.5, -0.5))
  axes.set_xticks(np.linspace(0, 1, 6))
  axes.set_xlabel("Share of the variance that parameters explain")
  theme.style(axes, xgrid=True, ygrid=False)
  axes.tick_params(axis="y", length=0, labelsize=9)
  axes.xaxis.set_major_formatter(percent)
  axes.spines["left"].set_visible(False)
  return figure


def curves(plan: Plan, found: Sequence[Trial], *, dark: bool = False) -> Figure:
  """Draws validation loss by epoch; pruned and failed trials end early."""
  theme = theme_of(dark)
  figure = theme.figure(8.2, 4.0)
  axes = figure.subplots()
  best = trials.best(found, plan.sign)
  color_of = score_colors(plan, found, theme)
  for trial in reversed(trials.by_score(found, plan.sign)):
    epochs, losses = list(trial.losses), list(trial.losses.values())
    if not epochs:
      continue
    color = trial_color(trial, best, color_of, theme)
    is_best = best is not None and trial.number == best.number
    ended = trial.state != trials.COMPLETE
    axes.plot(
      epochs,
      losses,
      color=color,
      linewidth=2.4 if is_best else 1.2,
      linestyle=(0, (3, 2)) if ended else "solid",
      marker="o" if plan.most_epochs <= 15 else None,
      markersize=3.5,
      zorder=4 if is_best else 2,
    )
    if ended:
      axes.plot(
        epochs[-1:],
        losses[-1:],
        marker="x",
        markersize=7,
        color=color,
        zorder=3,
      )
  _leave_off(axes)
  axes.set_xlabel("Epoch")
  axes.set_ylabel("Validation loss")
  theme.style(axes, xgrid=True, ygrid=True)
  axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
  handles = [
    ("best", {"color": theme.vermilion, "linewidth": 2.4}),
    ("complete", {"color": theme.blue, "linewidth": 1.2}),
    (
      "ended early",
      {"color": theme.muted, "linewidth": 1.2, "dashes": (3, 2), "marker": "x"},
    ),
  ]
  for label, look in handles:
    axes.plot([], [], label=label, **look)  # type: ignore[arg-type]
  theme.legend(axes)
  return figure


def score_colors(
  plan: Plan, found: Sequence[Trial], theme: Theme
) -> Callable[[float], Color]:
  """Colours of scores: the better, the stronger, among complete trials."""
  complete = [one for one in found if one.state == trials.COMPLETE]
  scores = [plan.sign * one.score for one in complete if one.score is not None]
  low, high = min(scores, default=0.0), max(scores, default=0.0)

  def color_of(score: float) -> Color:
    share = (plan.sign * score - low) / (high - low) if high > low else 1.0
    return theme.colormap(_PALEST + (1 - _PALEST) * min(max(share, 0.0), 1.0))

  return color_of


def trial_color(
  trial: Trial,
  best: Trial | None,
  color_of: Callable[[float], Color],
  theme: Theme,
) -> Color:
  """The colour of a trial's line: its score's, if it is complete."""
  if best is not None and trial.number == best.number:
    return to_rgba(theme.vermilion)
  if trial.state != trials.COMPLETE or trial.score is None:
    return to_rgba(theme.muted)
  return color_of(trial.score)


def _format_scores(axes: Axes, plan: Plan) -> None:
  if "accuracy" in plan.metric:
    axes.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.4g}%")


def _leave_off(axes: Axes) -> None:
  """Leaves out losses far above most, which would flatten all else."""
  losses = [y for line in axes.lines for y in np.asarray(line.get_ydata())]
  if not losses:
    return
  low, high = np.min(losses), np.max(losses)
  limit = low + 3 * (np.percentile(losses, 75) - low)
  if high > limit > low:
    axes.set_ylim(top=limit, bottom=low - 0.05 * (limit - low))
