"""Saves the checkpoints of a run."""

from typing import Any, NoReturn

from fer_jax.training import rescue
from fer_jax.training.logging import summary
from fer_jax.training.run_setup import Run
from fer_jax.training.runtime.signals import Interrupted
from fer_jax.training.train_state import TrainState, Tree


def save_checkpoint(run: Run, state: TrainState) -> None:
  """Saves everything, unless the current epoch's loss is non-finite."""
  if run.loop.metrics.count:
    run.logger.means(run.loop, run.loop.metrics)
  with rescue.if_removed(run, state):
    run.checkpoints.save(
      run.loop.step,
      lambda: run.experiment.parallel.fetch(state),
      run.batches.iterator,
      checkpoint_info(run),
    )
  run.loop.saved_step = run.loop.step


def save_best(run: Run, state: TrainState, variables: Tree) -> None:
  """Saves the best epoch.

  Args:
    run: at the end of that epoch.
    state: at the same time.
    variables: of it, which are evaluated.
  """
  with rescue.if_removed(run, state):
    run.checkpoints.save_best(
      run.loop.step,
      lambda: run.experiment.parallel.fetch(variables),
      checkpoint_info(run),
    )


def checkpoint_info(run: Run) -> dict[str, Any]:
  """Returns what a checkpoint says beside its arrays."""
  return {**run.experiment.info(), "loop_state": run.loop.to_json()}


def save_and_stop(run: Run, state: TrainState | None) -> NoReturn:
  """Saves and raises Interrupted, after a signal or a time limit."""
  if run.loop.step and state is not None:
    save_checkpoint(run, state)  # Does nothing if this step is saved already.
  run.checkpoints.close()
  message = summary.interrupted(run.loop, run.workdir)
  raise Interrupted(message, run.stop.cause)
