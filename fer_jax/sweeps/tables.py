"""The table of a sweep's trials, as Markdown and as CSV."""

from collections.abc import Sequence

from fer_jax.studies.tables import Table
from fer_jax.sweeps import trials
from fer_jax.sweeps.plan import Plan
from fer_jax.sweeps.space import format_value, short_names
from fer_jax.sweeps.trials import Trial, format_score


def of(plan: Plan, found: Sequence[Trial]) -> Table:
  """All trials, the best first.

  Args:
    plan: of the sweep.
    found: its trials.
  """
  fields = list(plan.space.parameters)
  names = short_names(fields)
  failed = any(trial.reason for trial in found)
  rows = []
  for trial in trials.by_score(found, plan.sign):
    row = [
      str(trial.number),
      *(format_value(trial.point[field]) for field in fields),
      format_score(trial.score, plan.metric),
      "-" if trial.best_epoch is None else str(trial.best_epoch),
      str(trial.num_epochs),
      trial.state,
      "-" if trial.seconds is None else f"{trial.seconds / 60:.1f}",
    ]
    if failed:
      row.append(trial.reason.replace("|", "/"))
    rows.append(tuple(row))
  header = (
    "trial",
    *(names[field] for field in fields),
    plan.metric.replace("_", " "),
    "best epoch",
    "epochs",
    "state",
    "minutes",
  )
  return Table(
    "trials",
    f"Trials by {plan.metric.replace('_', ' ')}",
    (*header, "reason") if failed else header,
    tuple(rows),
  )
