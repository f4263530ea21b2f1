"""Saves a run elsewhere when its workdir was removed while it trained.

The state is still in memory. It is written to a new workdir, where the same
command resumes.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fer_jax.errors import UserError
from fer_jax.files import atomic_write, unused_path
from fer_jax.training import workdir as workdirs
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.logging import metric_writer

if TYPE_CHECKING:
  from fer_jax.training.run_setup import Run
  from fer_jax.training.train_state import TrainState


@contextlib.contextmanager
def if_removed(run: Run, state: TrainState) -> Iterator[None]:
  """Saves the run elsewhere if its workdir is gone, before or in the block.

  Args:
    run: after a step.
    state: after the same step.

  Raises:
    UserError: the workdir is gone; the message says where the run is now. Or
      what the block raises, if the workdir is there.
  """
  try:
    if not (missing := _missing(run)):
      yield
      return
  except UserError:
    if not (missing := _missing(run)):
      raise
  raise UserError(f"{missing} was removed or renamed: {_save(run, state)}")


def _missing(run: Run) -> pathlib.Path | None:
  """Returns what was removed of a workdir; None if it is complete."""
  if (checkpoints := run.checkpoints.files) is None:
    return None  # Another process writes there.
  if not (run.workdir / workdirs.CONFIG).exists():
    return run.workdir
  best = checkpoints.directory / "best" / str(checkpoints.best_step)
  if checkpoints.best_step is not None and not best.exists():
    return checkpoints.directory
  return None


def _save(run: Run, state: TrainState) -> str:
  """Saves the run in the first folder that can be written; says where."""
  name = f"{run.workdir.name}-rescued"
  best_epoch = run.loop.early_stopping.best_epoch
  reason = ""
  for parent in (run.workdir.absolute().parent, tempfile.gettempdir()):
    try:
      folder = _make_folder(pathlib.Path(parent, name))
    except OSError as e:
      reason = reason or str(e)
      continue
    try:
      _write(run, state, folder)
    except (UserError, OSError) as e:
      reason = reason or str(e)
      shutil.rmtree(folder, ignore_errors=True)
    else:
      lost = ""
      if best_epoch != run.loop.early_stopping.best_epoch:
        lost = f" (but not epoch {best_epoch}, the best so far)"
      return (
        f"everything up to step {run.loop.step} was saved in {folder}{lost}:"
        f" rerun the command with workdir={folder} to resume"
      )
  return f"nothing could be saved elsewhere ({reason})"


def _make_folder(path: pathlib.Path) -> pathlib.Path:
  """Creates a folder, with a number in its name if there is one already."""
  folder = unused_path(path)
  folder.mkdir(parents=True)
  return folder


def _write(run: Run, state: TrainState, folder: pathlib.Path) -> None:
  """Writes everything that resuming needs into an empty folder."""
  loop, fetch = run.loop, run.experiment.parallel.fetch
  with (
    workdirs.claim(folder, run.config),
    Checkpoints(folder, run.config.checkpoint.keep) as checkpoints,
  ):
    with atomic_write(folder / metric_writer.FILE) as draft:
      draft.write_bytes(run.logger.metrics_so_far())
    if not (is_best := _is_best(run)):
      loop.early_stopping.forget_best()
    info = {**run.experiment.info(), "loop_state": loop.to_json()}
    if is_best:
      variables = fetch(state.eval_variables())
      checkpoints.save_best(loop.step, variables, info)
    checkpoints.save(loop.step, fetch(state), run.batches.iterator, info)


def _is_best(run: Run) -> bool:
  """Returns whether the state is that of the best epoch.

  After the last epoch it has to be: the variables of another one were in the
  workdir that is gone.
  """
  loop = run.loop
  if loop.metrics.count:
    return False  # within an epoch
  if loop.is_finished(run.config.num_epochs):
    loop.early_stopping.best_epoch = loop.epoch
  return loop.early_stopping.best_epoch == loop.epoch
