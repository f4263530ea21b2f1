"""Trains the trials of a sweep one after the other, until none is left."""

import contextlib
import math
import pathlib
import traceback
from collections.abc import Iterator
from typing import Any

from fer_jax.errors import Diverged, UserError, one_line, out_of_memory
from fer_jax.sweeps.plan import Plan, check_experiments
from fer_jax.sweeps.space import format_point
from fer_jax.sweeps.trial_store import Claim, HandedOn, TrialStore
from fer_jax.sweeps.trials import (
  COMPLETE,
  FAILED,
  PRUNED,
  Trial,
  best_trial,
  format_score,
  read_score,
)
from fer_jax.training import train_loop
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.logging import metric_writer
from fer_jax.training.runtime.signals import Interrupted, check_deadline
from fer_jax.training.workdir import CONFIG

_LOG = "log.txt"  # output of a trial in a process of its own


class _Pruned(Exception):
  """A trial is too bad to be continued."""


def work(
  plan: Plan, log_to_file: bool = False, deadline: float = math.inf
) -> None:
  """Trains what is left of a sweep, beside any other workers.

  Trials share this process and what it has compiled.

  Args:
    plan: of the sweep.
    log_to_file: whether each trial's output goes to `log.txt` in its folder.
    deadline: when to stop, in the time of `time.monotonic`.

  Raises:
    UserError: something that every trial would meet, such as a full disk, or
      data that have changed.
    Interrupted: SIGINT or SIGTERM was received, or the deadline is reached;
      what was trained is saved.
  """
  with contextlib.closing(TrialStore(plan)) as store:
    store.check_data_of_trials()
    while (claim := store.claim()) is not None:
      folder = plan.folder(claim.trial.number)
      try:
        check_deadline(deadline)
        print(_announce(plan, claim.trial), flush=True)
        with (
          store.heartbeats(claim),
          _redirect_output(folder / _LOG if log_to_file else None),
        ):
          trial = _train(store, claim, deadline)
        print(_describe(store, trial), flush=True)
      except HandedOn:
        print(
          f"trial {claim.trial.number} is another worker's now: this one could"
          " not reach the database in time",
          flush=True,
        )
      finally:
        store.release(claim)


def _train(store: TrialStore, claim: Claim, deadline: float) -> Trial:
  """Trains a trial until it is complete, pruned or failed."""
  plan = store.plan
  workdir = plan.folder(claim.trial.number)
  config = plan.configure(claim.trial.point)

  def after_epoch(metrics: dict[str, Any]) -> None:
    store.report(claim, metrics["epoch"], metrics["validation_loss"])
    if metrics["epoch"] < config.num_epochs and store.should_prune(claim):
      raise _Pruned

  def finish(state: str, **results: Any) -> Trial:
    found = read_score(workdir, plan.metric, plan.sign)
    return store.finish(claim, state, **found, **results)

  def fail(error: object) -> Trial:
    return finish(FAILED, reason=one_line(error))

  try:
    experiment = create_experiment(config)
    if not (workdir / CONFIG).exists():  # else it started from its weights
      experiment.read_initial_weights()
  except UserError as e:
    check_experiments(plan)  # Raises if not only these values are wrong now.
    return fail(e)
  store.check_data(config, experiment.dataset.description())
  del experiment  # The training creates its own.
  try:
    trained = [r for r in metric_writer.read(workdir) if r["kind"] == "epoch"]
    for record in trained:  # A killed worker may not have reported them.
      store.report(claim, record["epoch"], record["validation_loss"])
    if trained:
      after_epoch(trained[-1])
    train_loop.train_and_evaluate(
      config, workdir, after_epoch, evaluate_test=False, deadline=deadline
    )
  except _Pruned:
    return finish(PRUNED)
  except Diverged as e:
    return fail(e)
  except (MemoryError, RuntimeError) as e:
    if not out_of_memory(e):
      raise
    return fail(f"not enough memory: {e}")
  return finish(COMPLETE)


def _announce(plan: Plan, trial: Trial) -> str:
  """Returns a line on the trial that starts or resumes."""
  text = f"\ntrial {trial.number} ({trial.number + 1} of {plan.goal})"
  if trial.losses:
    text += f" resumes after epoch {trial.num_epochs}"
  return f"{text}: {format_point(trial.point) or 'the only point'}"


def _describe(store: TrialStore, trial: Trial) -> str:
  """Returns a line on how a trial ended, and which is the best now."""
  plan = store.plan
  if trial.state == FAILED:
    return f"trial {trial.number} failed: {trial.reason}"
  score = format_score(trial.score, plan.metric)
  text = f"trial {trial.number}: {plan.metric.replace('_', ' ')} {score}"
  if trial.state == PRUNED:
    return f"{text}, pruned after epoch {trial.num_epochs}"
  text += f" in epoch {trial.best_epoch}"
  best = best_trial(store.trials(), plan.sign)
  if best and best.number != trial.number:
    score = format_score(best.score, plan.metric)
    return f"{text}; best so far: trial {best.number}, {score}"
  return f"{text}, the best so far"


@contextlib.contextmanager
def _redirect_output(path: pathlib.Path | None) -> Iterator[None]:
  """Sends output and the traceback of an error to a file, if one is given."""
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
    except HandedOn:
      raise
    except Exception:
      traceback.print_exc()
      raise
