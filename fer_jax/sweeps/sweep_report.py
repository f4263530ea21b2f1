"""What a sweep leaves: a table, pictures, a page, and the best as a recipe."""

import pathlib
from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from fer_jax.evaluation import html_page, plots
from fer_jax.sweeps import (
  best_config,
  parallel_coordinates,
  sweep_plots,
  tables,
  trials,
)
from fer_jax.sweeps.plan import TRIALS, Plan
from fer_jax.sweeps.space import format_value
from fer_jax.sweeps.trial_store import Ledger, importances
from fer_jax.sweeps.trials import Trial, format_score

# fANOVA's forest makes nothing of fewer.
_FEWEST_FOR_IMPORTANCE = 4

Draw = Callable[[bool], Figure]  # of whether the page is dark


def write(ledger: Ledger, folder: pathlib.Path) -> pathlib.Path:
  """Writes everything anew.

  Args:
    ledger: of the sweep; at least one trial has a score.
    folder: where to; made if it is not there.

  Returns:
    The page.

  Raises:
    UserError: the folder cannot be written.
  """
  with html_page.reporting(folder):
    return _write(ledger, folder)


def why_no_importance(plan: Plan, found: Sequence[Trial]) -> str:
  """Why importances would say nothing; "" where they say something."""
  complete = [trial for trial in found if trial.state == trials.COMPLETE]
  if len(plan.space.parameters) < 2:
    return "there is one parameter or none"
  if len(complete) < _FEWEST_FOR_IMPORTANCE:
    return (
      f"{len(complete)} trials are complete, and it takes"
      f" {_FEWEST_FOR_IMPORTANCE}"
    )
  if len({trial.score for trial in complete}) < 2:
    return "all scores are equal"
  return ""


def _write(ledger: Ledger, folder: pathlib.Path) -> pathlib.Path:
  plan, found = ledger.plan, ledger.trials()
  table = tables.of(plan, found)
  (folder / "trials.csv").write_text(table.to_csv())
  (folder / "trials.md").write_text(table.to_markdown())
  best = trials.best(found, plan.sign)
  recipe = folder / best_config.NAME
  if best:
    best_config.write(plan, best, len(found), recipe)
  no_importance = why_no_importance(plan, found)
  drawings: dict[str, Draw] = {
    "parallel": lambda dark: parallel_coordinates.parallel(
      plan, found, dark=dark
    ),
    "history": lambda dark: sweep_plots.history(plan, found, dark=dark),
    "curves": lambda dark: sweep_plots.curves(plan, found, dark=dark),
  }
  if not no_importance:
    shares = importances(ledger)
    drawings["importance"] = lambda dark: sweep_plots.importance(
      shares, dark=dark
    )
  paths = plots.write_both(drawings, folder)
  drawn = {path.stem: html_page.picture(path) for path in paths}
  html = html_page.render(
    "sweep.html.jinja",
    title=f"A sweep of {plan.config.model.name} on {plan.config.dataset.name}",
    metric=plan.metric.replace("_", " "),
    best=best,
    best_score=format_score(best.score, plan.metric) if best else "-",
    best_point={
      field: format_value(value) for field, value in best.point.items()
    }
    if best
    else {},
    counts={
      state: sum(trial.state == state for trial in found)
      for state in (
        trials.COMPLETE,
        trials.PRUNED,
        trials.FAILED,
        trials.RUNNING,
      )
    },
    minutes=sum(trial.seconds or 0 for trial in found) / 60,
    table=table,
    pictures=drawn,
    no_importance=no_importance,
    space=plan.space.describe(),
    command=best_config.command_of(plan, recipe),
    links={
      str(trial.number): f"../{TRIALS}/{trial.number:04d}/curves.png"
      for trial in found
      if (plan.folder(trial.number) / "curves.png").is_file()
    },
  )
  path = folder / html_page.NAME
  path.write_text(html, encoding="utf-8")
  return path
