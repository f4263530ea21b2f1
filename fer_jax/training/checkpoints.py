"""Checkpoints of a run, written by orbax.

`checkpoints/STEP` holds all that resuming needs: the state, grain's iterator
and the run's position. `checkpoints/best/STEP` holds what evaluation needs:
parameters and BatchNorm statistics. Both carry the configuration, the class
names and the image shape, so a checkpoint is understood without its run.
"""

import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grain
import orbax.checkpoint as ocp

from fer_jax.errors import UserError
from fer_jax.training.train_state import TrainState, Tree

Info = dict[str, Any]  # fit for JSON


class Checkpoints:
  """The checkpoints of one workdir.

  Attributes:
    directory: WORKDIR/checkpoints.
  """

  def __init__(
    self, workdir: str | pathlib.Path, keep: int = 2, read_only: bool = False
  ):
    """Opens them.

    Args:
      workdir: of the run.
      keep: latest checkpoints kept.
      read_only: nothing is made or tidied up: what another process is saving
        there right now stays.
    """
    self.directory = pathlib.Path(workdir).absolute() / "checkpoints"
    with _named_errors(self.directory):
      self._latest = _manager(self.directory, keep, read_only)
      self._best = _manager(self.directory / "best", 1, read_only)

  @property
  def latest_step(self) -> int | None:
    """The step of the latest whole checkpoint; None where there is none."""
    return self._latest.latest_step()

  @property
  def best_step(self) -> int | None:
    """The step of the best checkpoint; None where there is none."""
    return self._best.latest_step()

  def save(
    self,
    step: int,
    state: TrainState,
    iterator: grain.DatasetIterator,
    info: Info,
  ) -> None:
    """Saves what resuming needs; returns while it is being written.

    Args:
      step: batches seen.
      state: host arrays.
      iterator: at the batch after `step`.
      info: configuration, class names, position.

    Raises:
      UserError: this or an earlier checkpoint could not be written.
    """
    with _named_errors(self.directory):
      self._latest.wait_until_finished()
      if step in self._latest.all_steps():
        return  # Interrupted again before the next step.
      self._latest.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state),
          iterator=grain.checkpoint.CheckpointSave(iterator),
          info=ocp.args.JsonSave(info),
        ),
      )

  def save_best(self, step: int, variables: Tree, info: Info) -> None:
    """Saves what evaluation needs, in the place of the best before."""
    with _named_errors(self.directory / "best"):
      if step in self._best.all_steps():
        self._best.delete(step)  # A killed run got as far as this.
      self._best.save(
        step,
        args=ocp.args.Composite(
          variables=ocp.args.StandardSave(variables),
          info=ocp.args.JsonSave(info),
        ),
      )
      self._best.wait_until_finished()

  def restore(
    self, like: TrainState, iterator: grain.DatasetIterator
  ) -> tuple[TrainState, Info]:
    """Restores the latest checkpoint; the iterator is set in place.

    Args:
      like: host arrays of the same shapes and types.
      iterator: over the same batches.
    """
    with _named_errors(self.directory):
      restored = self._latest.restore(
        self.latest_step,
        args=ocp.args.Composite(
          state=ocp.args.StandardRestore(like),
          iterator=grain.checkpoint.CheckpointRestore(iterator),
          info=ocp.args.JsonRestore(),
        ),
      )
    return restored.state, restored.info

  def info(self) -> Info:
    """What the latest checkpoint says beside its state."""
    with _named_errors(self.directory):
      args = ocp.args.Composite(info=ocp.args.JsonRestore())
      return self._latest.restore(self.latest_step, args=args).info

  def restore_best(self, like: Tree) -> Tree:
    """Restores the best parameters and BatchNorm statistics."""
    with _named_errors(self.directory / "best"):
      args = ocp.args.Composite(variables=ocp.args.StandardRestore(like))
      return self._best.restore(self.best_step, args=args).variables

  def restore_variables(self, which: str) -> tuple[Tree, Info]:
    """Restores what evaluation applies, without knowing its shapes.

    Args:
      which: "best" or "latest".

    Returns:
      `params` (averaged ones where the run keeps an average) and
      `batch_stats`, and what the checkpoint says beside them.

    Raises:
      UserError: there is no such checkpoint, or it cannot be read.
    """
    best = which == "best"
    manager = self._best if best else self._latest
    step, item = manager.latest_step(), "variables" if best else "state"
    if step is None:
      raise UserError(
        f"no {which} checkpoint in {self.directory}: train a whole epoch first"
      )
    with _named_errors(self.directory, _READ_OTHER):
      restored = manager.restore(
        step,
        args=ocp.args.Composite(
          **{item: ocp.args.StandardRestore()}, info=ocp.args.JsonRestore()
        ),
      )
    tree = restored[item]
    params = tree.get("ema") or tree["params"]
    batch_stats = tree.get("batch_stats") or {}
    return {"params": params, "batch_stats": batch_stats}, restored.info

  def close(self) -> None:
    """Waits for what is being written."""
    with _named_errors(self.directory):
      self._latest.close()
      self._best.close()


def _manager(
  directory: pathlib.Path, keep: int, read_only: bool
) -> ocp.CheckpointManager:
  # orbax's own `read_only` warns of every directory.
  options = ocp.CheckpointManagerOptions(
    max_to_keep=None if read_only else keep,
    cleanup_tmp_directories=not read_only,
    create=not read_only,
  )
  return ocp.CheckpointManager(directory, options=options)


# The ways out, in training and in reading what is trained.
_GO_ON = (
  "What was saved before is whole; mend the cause (disk space, permissions) and"
  " give the same command to go on"
)
_READ_OTHER = (
  "It cannot be read: give --checkpoint=best or --checkpoint=latest, whichever"
  " is whole, or train on"
)


@contextmanager
def _named_errors(
  directory: pathlib.Path, way_out: str = _GO_ON
) -> Iterator[None]:
  """Turns what a full or broken disk raises into one line."""
  try:
    yield
  except (OSError, ValueError, RuntimeError, KeyError) as e:
    reason = " ".join(str(e).split())[:300]
    raise UserError(
      f"checkpoint in {directory}: {reason or type(e).__name__}. {way_out}"
    ) from e
