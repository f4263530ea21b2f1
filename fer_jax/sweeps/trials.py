"""Trials of a sweep, as its table and its plots show them."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from fer_jax.sweeps.plan import Plan
from fer_jax.sweeps.sampling import to_point
from fer_jax.sweeps.space import Point
from fer_jax.training.logging import metric_writer

MAX_STARTS = 3  # of a trial whose process is killed before an epoch ends
COMPLETE, PRUNED, FAILED, RUNNING = "complete", "pruned", "failed", "running"
STATES = {
  TrialState.COMPLETE: COMPLETE,
  TrialState.PRUNED: PRUNED,
  TrialState.FAIL: FAILED,
  TrialState.RUNNING: RUNNING,
  TrialState.WAITING: RUNNING,  # for a worker that resumes it
}


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
  """One point of the space, trained or being trained.

  Attributes:
    number: from 0, also in the name of its workdir.
    point: the values of the searched fields.
    state: COMPLETE, PRUNED, FAILED, or RUNNING, which includes interrupted.
    score: the metric of its best epoch; None before the first.
    best_epoch: number of that epoch, from 1; None before the first.
    losses: validation loss by epoch.
    seconds: training time; None while it runs.
    reason: one line on why it failed.
    stored: Optuna's trial; if a worker died, the last one of several.
  """

  number: int
  point: Point
  state: str
  score: float | None
  best_epoch: int | None
  losses: dict[int, float]
  seconds: float | None
  reason: str
  stored: FrozenTrial = dataclasses.field(repr=False)

  @property
  def num_epochs(self) -> int:
    """Finished epochs."""
    return max(self.losses, default=0)


def read_trials(plan: Plan, stored: Sequence[FrozenTrial]) -> list[Trial]:
  """Converts the trials of Optuna's study.

  A trial whose worker died is FAILED there, and a later one resumes it: both
  are one trial here.

  Args:
    plan: of the sweep.
    stored: all trials of the study, by number.
  """
  latest: dict[int, FrozenTrial] = {}
  for trial in stored:
    latest[first_number(trial)] = trial
  return [_read(plan, i, trial) for i, trial in enumerate(latest.values())]


def first_number(trial: FrozenTrial) -> int:
  """Returns Optuna's number of the trial that this one resumes, or its own."""
  return int(trial.system_attrs.get("failed_trial", trial.number))


def _read(plan: Plan, number: int, trial: FrozenTrial) -> Trial:
  attributes = trial.user_attrs
  return Trial(
    number=number,
    point=to_point(plan.space, trial.params),
    state=STATES[trial.state],
    score=attributes.get("score"),
    best_epoch=attributes.get("best_epoch"),
    losses={
      epoch: -plan.sign * value
      for epoch, value in sorted(trial.intermediate_values.items())
    },
    seconds=attributes.get("seconds"),
    reason=attributes.get("reason", "") or _reason_of_ends(trial),
    stored=trial,
  )


def starts(trial: FrozenTrial) -> int:
  """Returns how often a trial was started since its last finished epoch.

  Starts count that ended with their process, not those that ended in order.
  """
  known = trial.user_attrs.get("starts", {})
  is_of_epoch = known.get("epochs") == len(trial.intermediate_values)
  return known["count"] if is_of_epoch else 0


def one_more_start(trial: FrozenTrial) -> dict[str, int]:
  """Returns what a trial records when it is started, for `starts`."""
  epochs = len(trial.intermediate_values)
  return {"epochs": epochs, "count": starts(trial) + 1}


def _reason_of_ends(trial: FrozenTrial) -> str:
  if trial.state != TrialState.FAIL or starts(trial) < MAX_STARTS:
    return ""
  return (
    f"its process was killed {MAX_STARTS} times within an epoch, perhaps out of"
    " memory"
  )


def read_score(workdir: pathlib.Path, metric: str, sign: int) -> dict[str, Any]:
  """Returns score, best epoch and seconds of a run so far; {} before any.

  Args:
    workdir: of the run.
    metric: a field of the epochs' records.
    sign: 1 if the highest is best, -1 if the lowest is.
  """
  epochs = [r for r in metric_writer.read(workdir) if r["kind"] == "epoch"]
  scored = [r for r in epochs if r[metric] is not None]
  if not scored:
    return {}
  best = max(scored, key=lambda record: sign * record[metric])
  return {
    "score": best[metric],
    "best_epoch": best["epoch"],
    "seconds": epochs[-1]["seconds"],
  }


def by_score(trials: Sequence[Trial], sign: int) -> list[Trial]:
  """Sorts trials: the best first; pruned, running and failed ones last."""
  order = (COMPLETE, PRUNED, RUNNING, FAILED)

  def key(trial: Trial) -> tuple[int, float, int]:
    score = math.inf if trial.score is None else -sign * trial.score
    return order.index(trial.state), score, trial.number

  return sorted(trials, key=key)


def best_trial(trials: Sequence[Trial], sign: int) -> Trial | None:
  """Returns the complete trial with the best score, the first of equals."""
  complete = [trial for trial in trials if trial.state == COMPLETE]
  return by_score(complete, sign)[0] if complete else None


def format_score(score: float | None, metric: str) -> str:
  """Formats a score; accuracy in percent.

  >>> format_score(0.6543, "validation_accuracy")
  '65.43 %'
  """
  if score is None:
    return "-"
  return f"{score:.2%}"[:-1] + " %" if "accuracy" in metric else f"{score:.4f}"
