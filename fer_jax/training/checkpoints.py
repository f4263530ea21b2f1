"""Checkpoints of a run, written by orbax.

`checkpoints/STEP` holds everything needed to resume: the training state,
grain's iterator and the loop's state. `checkpoints/best/STEP` holds what
evaluation needs: parameters and BatchNorm statistics. Both contain the
configuration, the class names and the image shape, so that a checkpoint can be
used without its run. Each has checksums of its files, which are verified before
it is read.
"""

import json
import pathlib
import shutil
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Any

import grain
import orbax.checkpoint as ocp

from fer_jax import checksums
from fer_jax.checksums import Damage
from fer_jax.errors import UserError
from fer_jax.files import unused_path
from fer_jax.training import older_checkpoints
from fer_jax.training.best_checkpoint import BestCheckpoint
from fer_jax.training.checkpoint_manager import (
  MAX_READS,
  READ_OTHER,
  REPLACED,
  named_errors,
  open_manager,
  restore_replaced,
  save,
)
from fer_jax.training.loop_state import saved_fields
from fer_jax.training.train_state import TrainState, Tree

Info = dict[str, Any]  # can be written as JSON


class Checkpoints:
  """The checkpoints of one workdir.

  Attributes:
    directory: WORKDIR/checkpoints.
  """

  def __init__(
    self, workdir: str | pathlib.Path, keep: int = 2, read_only: bool = False
  ):
    """Opens the checkpoints of a workdir.

    Args:
      workdir: the run's folder.
      keep: number of latest checkpoints to keep.
      read_only: creates and deletes nothing, so that another process may be
        saving checkpoints there.
    """
    self.directory = pathlib.Path(workdir).absolute() / "checkpoints"
    self._read_only = read_only
    with named_errors(self.directory):
      if not read_only:
        restore_replaced(self.directory)
      self._latest = open_manager(self.directory, keep, read_only)
      self._best = BestCheckpoint(self.directory / "best", read_only)

  @property
  def latest_step(self) -> int | None:
    """The step of the latest complete checkpoint; None if there is none."""
    return self._latest.latest_step()

  @property
  def best_step(self) -> int | None:
    """The step of the best checkpoint; None if there is none."""
    return self._best.step

  def save(
    self,
    step: int,
    state: TrainState,
    iterator: grain.DatasetIterator,
    info: Info,
  ) -> None:
    """Saves everything needed to resume; returns while it is being written.

    The checkpoint that has this step already is only replaced if the epoch was
    evaluated since; it is deleted when the new one is complete.

    Args:
      step: number of batches seen.
      state: host arrays.
      iterator: its next batch is the one after `step`.
      info: configuration, class names, loop state.

    Raises:
      UserError: this or an earlier checkpoint could not be written.
    """
    with named_errors(self.directory):
      self._latest.wait_until_finished()
      self._best.delete_older(self.latest_step)
      replaced = None
      if step in self._latest.all_steps():
        if saved_fields(self.info())["epoch"] == saved_fields(info)["epoch"]:
          return  # Interrupted again before the next step.
        replaced = self.directory / f"{REPLACED}{step}"
        (self.directory / str(step)).rename(replaced)
        self._latest.reload()
      items = {
        "state": ocp.args.StandardSave(state),
        # The same in all processes, which one or more of them may resume.
        "iterator": ocp.args.JsonSave(iterator.get_state()),
        "info": ocp.args.JsonSave(info),
      }
      save(self._latest, step, items)
      if replaced:
        self._latest.wait_until_finished()
        shutil.rmtree(replaced)

  def save_best(self, step: int, variables: Tree, info: Info) -> None:
    """Saves what evaluation needs; the best before goes with the next save."""
    with named_errors(self.directory / "best"):
      self._latest.wait_until_finished()  # It knows the best before.
      self._best.save(step, variables, info)

  def set_aside_damaged(self) -> list[str]:
    """Makes the latest undamaged checkpoint the latest one.

    Newer ones, which are damaged, are renamed to
    `checkpoints/damaged-STEP-REASON`, with a best one that is newer. That is
    deleted if the run was only cut off before it saved the rest of the epoch.

    Returns:
      What was damaged, and what is used instead; empty if nothing was.

    Raises:
      UserError: all checkpoints are damaged; then nothing is renamed.
    """
    damaged: dict[int, Damage] = {}
    with named_errors(self.directory):
      for step in sorted(self._latest.all_steps(), reverse=True):
        if not (damage := self._find_damage(step)):
          break
        damaged[step] = damage
      else:
        if damaged:
          raise UserError(
            f"{next(iter(damaged.values()))}, and no earlier checkpoint is"
            " whole: use another workdir"
          )
      messages = []
      for bad, damage in damaged.items():
        messages.append(f"{damage}: resuming from step {step} instead")
        if self._read_only:
          raise UserError(str(damage))
        folder = self.directory / str(bad)
        name = f"damaged-{bad}-{damage.reason.replace(' ', '-')}"
        folder.rename(unused_path(self.directory / name))
      if damaged:
        self._latest.reload()
      cut_off = self.latest_step is not None and not damaged
      return messages + self._best.remove_newer(
        self.latest_step, set_aside=not cut_off
      )

  def _find_damage(self, step: int) -> Damage | None:
    folder = self.directory / str(step)
    if checksums.exist(folder):
      return checksums.find_damage(folder)
    return older_checkpoints.find_damage(self._latest, step, folder)

  def restore(
    self, like: TrainState, iterator: grain.DatasetIterator | None
  ) -> tuple[TrainState, Info]:
    """Restores the latest checkpoint; the iterator is set in place.

    Args:
      like: host arrays of the same shapes and types.
      iterator: over the same batches; None leaves it out.
    """
    with named_errors(self.directory):
      folder = self.directory / str(self.latest_step) / "state"
      only_params = like.ema and older_checkpoints.has_averages_of_params_only(
        folder
      )
      if only_params:
        like = like.replace(ema=like.ema["params"])
      items = {
        "state": ocp.args.StandardRestore(like),
        "info": ocp.args.JsonRestore(),
      }
      # Before 0.1.0, in development, each process wrote a file; all are equal.
      old = sorted(folder.with_name("iterator").glob("process_*-of-*.json"))
      if iterator is not None and not old:
        items["iterator"] = ocp.args.JsonRestore()
      restored = self._latest.restore(
        self.latest_step, args=ocp.args.Composite(**items)
      )
      if iterator is not None:
        iterator.set_state(
          json.loads(old[0].read_bytes()) if old else restored.iterator
        )
    state = restored.state
    if only_params:
      averages = {"params": state.ema, "batch_stats": state.batch_stats}
      state = state.replace(ema=averages)
    return state, restored.info

  def info(self) -> Info:
    """Returns what the latest checkpoint says beside its arrays."""
    with named_errors(self.directory):
      args = ocp.args.Composite(info=ocp.args.JsonRestore())
      return self._latest.restore(self.latest_step, args=args).info

  def restore_variables(self, which: str) -> tuple[Tree, Info]:
    """Restores the variables to evaluate, whatever their shapes.

    Args:
      which: "best" or "latest".

    Returns:
      `params` (the moving average if the run has one) and `batch_stats`, and
      what the checkpoint says beside them.

    Raises:
      UserError: there is no such checkpoint, or it cannot be read.
    """
    manager = self._best.manager if which == "best" else self._latest
    for _ in range(MAX_READS):
      if (step := manager.latest_step()) is None:
        raise UserError(
          f"no {which} checkpoint in {self.directory}: train a whole epoch"
          " first"
        )
      try:
        with named_errors(self.directory, READ_OTHER):
          return self._read_variables(manager, step, which)
      except UserError as e:
        # A run that is training may have replaced it meanwhile.
        error = e
        manager.reload()
        if manager.latest_step() == step:
          break
    raise error

  def _read_variables(
    self, manager: ocp.CheckpointManager, step: int, which: str
  ) -> tuple[Tree, Info]:
    best = which == "best"
    folder = (self.directory / "best" if best else self.directory) / str(step)
    if damage := checksums.find_damage(folder):
      raise UserError(f"{damage}. {READ_OTHER}")
    item = "variables" if best else "state"
    restored = manager.restore(
      step,
      args=ocp.args.Composite(
        **{item: ocp.args.StandardRestore()}, info=ocp.args.JsonRestore()
      ),
    )
    tree = restored[item]
    averages = tree.get("ema") or {}
    if averages and older_checkpoints.are_params_only(averages):
      averages = {"params": averages}
    variables = {"batch_stats": tree.get("batch_stats") or {}}
    variables |= {"params": tree["params"]} | averages
    return variables, restored.info

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    # A save that failed has been reported, or its cause is `error`.
    with suppress(UserError) if error else nullcontext():
      self.close()

  def close(self) -> None:
    """Waits until everything is written."""
    with named_errors(self.directory):
      self._latest.wait_until_finished()
      if not self._read_only:
        self._best.delete_older(self.latest_step)
      self._latest.close()
      self._best.manager.close()


def read_variables(
  workdir: str | pathlib.Path, which: str = "best"
) -> tuple[Tree, Info]:
  """Reads the variables of a run; see `Checkpoints.restore_variables`."""
  with Checkpoints(workdir, read_only=True) as checkpoints:
    return checkpoints.restore_variables(which)
