"""Trains trials one after the other, until none is left."""

import contextlib
import pathlib
import traceback
from collections.abc import Iterator
from typing import Any

import jax

from fer_jax.errors import Diverged, UserError
from fer_jax.sweeps import trials
from fer_jax.sweeps.plan import Plan
from fer_jax.sweeps.space import format_point
from fer_jax.sweeps.trial_store import Ledger
from fer_jax.sweeps.trials import Trial, format_score
from fer_jax.training import experiment, train_loop
from fer_jax.training.logging import metric_writer
from fer_jax.training.runtime.signals import Interrupted

_LOG = "log.txt"  # what a trial in a process of its own says


class Pruned(Exception):
  """A trial does so badly that it is not worth going on."""


def work(plan: Plan, apart: bool = False) -> None:
  """Trains what is left of a sweep, beside any others that do.

  In one process, so that trials share what is compiled.

  Args:
    plan: of the sweep.
    apart: whether what a trial says goes to `log.txt` in its folder.

  Raises:
    UserError: something that no other trial would be spared, as a full disk.
    Interrupted: SIGINT or SIGTERM came; what was trained is saved.
  """
  with contextlib.closing(Ledger(plan)) as ledger:
    while (taken := ledger.take()) is not None:
      trial, lock = taken
      try:
        print(_announce(plan, trial), flush=True)
        with _log(plan.folder(trial.number) / _LOG if apart else None):
          trial = _train(ledger, trial)
        print(_describe(ledger, trial), flush=True)
      finally:
        lock.release()


def _train(ledger: Ledger, trial: Trial) -> Trial:
  """Trains a trial to its end, whatever that is."""
  plan, number = ledger.plan, trial.number
  workdir, config = plan.folder(number), plan.configure(trial.point)

  def prune_if_bad() -> None:
    if ledger.should_prune(number):
      raise Pruned

  def after_epoch(metrics: dict[str, Any]) -> None:
    ledger.tell(number, metrics["epoch"], metrics["validation_loss"])
    if metrics["epoch"] < config.num_epochs:
      prune_if_bad()

  def fail(reason: object) -> Trial:
    found = trials.outcome(workdir, plan.metric, plan.sign)
    line = " ".join(str(reason).split())[:300]
    return ledger.end(number, trials.FAILED, **found, reason=line)

  try:
    experiment.create_experiment(config)
  except UserError as e:  # These values do not go together.
    return fail(e)
  try:
    told = [r for r in metric_writer.read(workdir) if r["kind"] == "epoch"]
    for record in told:  # A killed process may not have come to it.
      ledger.tell(number, record["epoch"], record["validation_loss"])
    if told and told[-1]["epoch"] < config.num_epochs:
      prune_if_bad()
    train_loop.train_and_evaluate(
      config, workdir, after_epoch, evaluate_test=False
    )
  except Pruned:
    found = trials.outcome(workdir, plan.metric, plan.sign)
    return ledger.end(number, trials.PRUNED, **found)
  except Diverged as e:
    return fail(e)
  except jax.errors.JaxRuntimeError as e:
    if "RESOURCE_EXHAUSTED" not in str(e):
      raise
    return fail(f"the device has not enough memory: {e}")
  found = trials.outcome(workdir, plan.metric, plan.sign)
  return ledger.end(number, trials.COMPLETE, **found)


def _announce(plan: Plan, trial: Trial) -> str:
  """Which trial begins, or goes on."""
  text = f"\ntrial {trial.number} ({trial.number + 1} of {plan.goal})"
  if trial.losses:
    text += f" goes on after epoch {trial.num_epochs}"
  return f"{text}: {format_point(trial.point) or 'the only point'}"


def _describe(ledger: Ledger, trial: Trial) -> str:
  """How a trial ended, and which is the best now."""
  plan = ledger.plan
  if trial.state == trials.FAILED:
    return f"trial {trial.number} failed: {trial.reason}"
  score = format_score(trial.score, plan.metric)
  text = f"trial {trial.number}: {plan.metric.replace('_', ' ')} {score}"
  if trial.state == trials.PRUNED:
    return f"{text}, pruned after epoch {trial.num_epochs}"
  text += f" in epoch {trial.best_epoch}"
  best = trials.best(ledger.trials(), plan.sign)
  if best and best.number != trial.number:
    score = format_score(best.score, plan.metric)
    return f"{text}; best so far: trial {best.number}, {score}"
  return f"{text}, the best so far"


@contextlib.contextmanager
def _log(path: pathlib.Path | None) -> Iterator[None]:
  """Sends what is said, and how it went wrong, to a file."""
  if path is None:
    yield
    return
  with (
    open(path, "a", buffering=1) as file,
    contextlib.redirect_stdout(file),
    contextlib.redirect_stderr(file),
  ):
    try:
      yield
    except (UserError, Interrupted) as e:
      print(e)
      raise
    except Exception:
      traceback.print_exc()
      raise
