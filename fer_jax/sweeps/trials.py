"""A trial of a sweep, as tables and pictures see it."""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from fer_jax.sweeps.space import Point
from fer_jax.training.logging import metric_writer

COMPLETE, PRUNED, FAILED, RUNNING = "complete", "pruned", "failed", "running"


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
  """One point of the space, trained or being trained.

  Attributes:
    number: from 0; of its workdir.
    point: the values of what is searched.
    state: COMPLETE, PRUNED, FAILED, or RUNNING, which includes interrupted.
    score: the best epoch's metric; None where there is none.
    best_epoch: its number; None likewise.
    losses: validation loss by epoch.
    seconds: of training; None while it runs.
    reason: of a failure, a line.
  """

  number: int
  point: Point
  state: str
  score: float | None = None
  best_epoch: int | None = None
  losses: dict[int, float] = dataclasses.field(default_factory=dict)
  seconds: float | None = None
  reason: str = ""

  @property
  def num_epochs(self) -> int:
    """Epochs done."""
    return max(self.losses, default=0)


def outcome(workdir: pathlib.Path, metric: str, sign: int) -> dict[str, Any]:
  """The score of a run so far, its best epoch and its seconds.

  Args:
    workdir: of the run.
    metric: a field of the records of epochs.
    sign: 1 where the highest is best, -1 where the lowest is.
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
  """The best first; then pruned ones, those that run, and failed ones."""
  order = (COMPLETE, PRUNED, RUNNING, FAILED)

  def key(trial: Trial) -> tuple[int, float, int]:
    score = math.inf if trial.score is None else -sign * trial.score
    return order.index(trial.state), score, trial.number

  return sorted(trials, key=key)


def best(trials: Sequence[Trial], sign: int) -> Trial | None:
  """The complete trial with the best score, the first of equals."""
  complete = [trial for trial in trials if trial.state == COMPLETE]
  return by_score(complete, sign)[0] if complete else None


def format_score(score: float | None, metric: str) -> str:
  """A score as it is read: accuracy in per cent.

  >>> format_score(0.6543, "validation_accuracy")
  '65.43 %'
  """
  if score is None:
    return "-"
  return f"{score:.2%}"[:-1] + " %" if "accuracy" in metric else f"{score:.4f}"
