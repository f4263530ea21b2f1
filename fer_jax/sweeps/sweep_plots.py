"""Optuna's plots of a sweep, in the colors of a light or a dark page."""

import functools
import warnings
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
import optuna
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.trial import create_trial
from optuna.visualization import matplotlib as optuna_plots

from fer_jax.plot_theme import Theme, percent, theme_of
from fer_jax.sweeps import trials
from fer_jax.sweeps.plan import Plan
from fer_jax.sweeps.space import short_names
from fer_jax.sweeps.trials import Trial

_MIN_TRIALS_FOR_IMPORTANCE = 4
_DPI = 150
# The end of the theme's colors that is nearly the page's is left out.
_PALEST = 0.35
_MAX_LEGEND = 20  # trials
_SIZES = {  # inches, at least
  "parallel": (9.0, 4.6),
  "history": (6.4, 4.0),
  "curves": (8.2, 4.0),
  "importance": (6.4, 3.0),
}

Draw = Callable[[bool], Figure]  # given whether the page is dark


def drawings(plan: Plan, found: Sequence[Trial]) -> dict[str, Draw]:
  """Returns functions that draw the plots, by name.

  Args:
    plan: of the sweep.
    found: its trials.
  """
  metric = plan.metric.replace("_", " ")
  study = _study(plan, found)
  by_name: dict[str, Callable[[], Axes]] = {
    "parallel": lambda: optuna_plots.plot_parallel_coordinate(
      study, target_name=metric
    ),
    "history": lambda: optuna_plots.plot_optimization_history(
      study, target_name=metric
    ),
    "curves": lambda: _curves(study),
  }
  if not why_no_importance(plan, found):
    by_name["importance"] = lambda: _importance(study)
  return {
    name: functools.partial(_draw, name, plot, plan)
    for name, plot in by_name.items()
  }


def why_no_importance(plan: Plan, found: Sequence[Trial]) -> str:
  """Returns why importances would say nothing; "" if they say something."""
  complete = [trial for trial in found if trial.state == trials.COMPLETE]
  if len(plan.space.parameters) < 2:
    return "there are fewer than two parameters"
  if len(complete) < _MIN_TRIALS_FOR_IMPORTANCE:
    return (
      f"{len(complete)} trials are complete, it takes"
      f" {_MIN_TRIALS_FOR_IMPORTANCE}"
    )
  if len({trial.score for trial in complete}) < 2:
    return "all scores are equal"
  return ""


def _study(plan: Plan, found: Sequence[Trial]) -> optuna.Study:
  """Returns the trials under short names, each once, with positive losses."""
  study = optuna.create_study(direction=plan.direction)
  names = short_names(list(plan.space.parameters))
  for trial in found:
    stored = trial.stored
    study.add_trial(
      create_trial(
        state=stored.state,
        value=stored.value,
        params={names[f]: v for f, v in stored.params.items()},
        distributions={names[f]: d for f, d in stored.distributions.items()},
        intermediate_values=trial.losses,
      )
    )
  return study


def _curves(study: optuna.Study) -> Axes:
  axes = optuna_plots.plot_intermediate_values(study)
  axes.set(xlabel="Epoch", ylabel="Validation loss")
  axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
  legend = axes.get_legend()
  if legend and len(legend.get_texts()) > _MAX_LEGEND:
    legend.remove()
  return axes


def _importance(study: optuna.Study) -> Axes:
  # Hutter et al. 2014, "An Efficient Approach for Assessing Hyperparameter
  # Importance".
  evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
  axes = optuna_plots.plot_param_importances(study, evaluator=evaluator)
  axes.set(xlabel="Fraction of the explained variance", ylabel="")
  axes.xaxis.set_major_formatter(percent)
  if legend := axes.get_legend():
    legend.remove()
  return axes


def _draw(
  name: str, plot: Callable[[], Axes], plan: Plan, dark: bool
) -> Figure:
  """Calls a plot of Optuna's, which changes matplotlib's style and state."""
  theme = theme_of(dark)
  with matplotlib.rc_context(), warnings.catch_warnings():
    warnings.simplefilter("ignore")  # experimental; one value on an axis
    axes = plot()
  figure = axes.figure
  assert isinstance(figure, Figure)
  pyplot.close(figure)
  width, height = _SIZES[name]
  figure.set_size_inches(
    max(width, 2.0 + 1.4 * len(plan.space.parameters)), height
  )
  figure.set_dpi(_DPI)
  figure.set_layout_engine("tight")
  _recolor(figure, theme, grid=name != "parallel")
  for place in ("center", "left"):
    axes.set_title("", loc=place)
  if name in ("history", "parallel") and "accuracy" in plan.metric:
    axes.yaxis.set_major_formatter(percent)
  if name == "parallel":
    axes.tick_params(axis="x", labelrotation=0)
    colors = theme.colormap(np.linspace(_PALEST, 1, 64)[:: plan.sign])
    for lines in axes.collections:
      lines.set_cmap(ListedColormap(colors))
  return figure


def _recolor(figure: Figure, theme: Theme, grid: bool) -> None:
  figure.set_facecolor(theme.page)
  for axes in figure.axes:
    axes.set_facecolor(theme.page)
    axes.grid(grid)
    for line in (*axes.get_xgridlines(), *axes.get_ygridlines()):
      line.set(color=theme.grid, linewidth=0.6)
    axes.tick_params(colors=theme.ink, labelsize=8)
    for label in (axes.xaxis.label, axes.yaxis.label):
      label.set(color=theme.ink, fontsize=9)
    for text in axes.texts:
      text.set_color(theme.ink)
    for spine in axes.spines.values():
      spine.set_color(theme.muted)
    if legend := axes.get_legend():
      legend.set_frame_on(False)
      for text in legend.get_texts():
        text.set(color=theme.ink, fontsize=8)
