"""The report of a sweep: a table, plots, one page, and the best recipe."""

import pathlib
from collections.abc import Sequence
from typing import Any

from fer_jax.evaluation import html_page
from fer_jax.sweeps import best_config, sweep_plots, trials
from fer_jax.sweeps.plan import TRIALS, Plan
from fer_jax.sweeps.space import format_value, short_names
from fer_jax.sweeps.trials import Trial, format_score
from fer_jax.tables import Table

KIND = "sweep"  # of report


def write(
  plan: Plan, found: Sequence[Trial], folder: pathlib.Path
) -> pathlib.Path:
  """Writes the report, replacing an older one.

  Args:
    plan: of the sweep.
    found: its trials; at least one has a score.
    folder: is created if it does not exist.

  Returns:
    The path of the page.

  Raises:
    UserError: the folder cannot be written, or holds files that the package did
      not make.
  """
  output = html_page.report_folder(folder, KIND)
  table = to_table(plan, found)
  texts = {"trials.csv": table.to_csv(), "trials.md": table.to_markdown()}
  recipe = folder / best_config.NAME
  best = trials.best_trial(found, plan.sign)
  if best:
    text = best_config.to_recipe(plan, best, len(found), recipe)
    texts[best_config.NAME] = text
  names = html_page.write_pictures(sweep_plots.drawings(plan, found), output)
  texts[html_page.NAME] = html_page.render(
    "sweep.html.jinja",
    title=f"A sweep of {plan.config.model.name} on {plan.config.dataset.name}",
    table=table,
    pictures=html_page.pictures(folder, names),
    no_importance=sweep_plots.why_no_importance(plan, found),
    space=plan.space.describe(),
    command=best_config.command_of(plan, recipe),
    **_results(plan, found, best),
  )
  for name, text in texts.items():
    with output.write(name) as temporary:
      temporary.write_text(text, encoding="utf-8")
  return folder / html_page.NAME


def to_table(plan: Plan, found: Sequence[Trial]) -> Table:
  """Returns the table of all trials, the best first.

  Args:
    plan: of the sweep.
    found: its trials.
  """
  fields = list(plan.space.parameters)
  names, metric = short_names(fields), plan.metric.replace("_", " ")
  header = [
    "trial",
    *(names[field] for field in fields),
    metric,
    "best epoch",
    "epochs",
    "state",
    "minutes",
  ]
  rows = [
    [
      str(trial.number),
      *(format_value(trial.point[field]) for field in fields),
      format_score(trial.score, plan.metric),
      "-" if trial.best_epoch is None else str(trial.best_epoch),
      str(trial.num_epochs),
      trial.state,
      "-" if trial.seconds is None else f"{trial.seconds / 60:.1f}",
      trial.reason,
    ]
    for trial in trials.by_score(found, plan.sign)
  ]
  if any(trial.reason for trial in found):
    header.append("reason")
  return Table(
    "trials",
    f"Trials by {metric}",
    tuple(header),
    tuple(tuple(row[: len(header)]) for row in rows),
  )


def _results(
  plan: Plan, found: Sequence[Trial], best: Trial | None
) -> dict[str, Any]:
  """Returns what the page says about the trials."""
  states = (trials.COMPLETE, trials.PRUNED, trials.FAILED, trials.RUNNING)
  point = best.point if best else {}
  return {
    "metric": plan.metric.replace("_", " "),
    "best": best,
    "best_score": format_score(best.score if best else None, plan.metric),
    "best_point": {field: format_value(v) for field, v in point.items()},
    "counts": {
      state: sum(trial.state == state for trial in found) for state in states
    },
    "minutes": sum(trial.seconds or 0 for trial in found) / 60,
    "links": {
      str(trial.number): f"../{TRIALS}/{trial.number:04d}/curves.png"
      for trial in found
      if (plan.folder(trial.number) / "curves.png").is_file()
    },
  }
