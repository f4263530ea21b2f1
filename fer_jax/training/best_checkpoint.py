"""The checkpoint of the best epoch, `checkpoints/best/STEP`."""

import pathlib

import orbax.checkpoint as ocp

from fer_jax.files import unused_path
from fer_jax.training.checkpoint_manager import open_manager, save
from fer_jax.training.train_state import Tree


class BestCheckpoint:
  """What evaluation needs of the best epoch: parameters and statistics.

  It is saved before the checkpoint that says which epoch is the best. Until
  that one is complete, the best before it stays beside it, so that a run that
  is cut off between the two can resume.

  Attributes:
    manager: orbax's, of the folder.
  """

  def __init__(self, directory: pathlib.Path, read_only: bool):
    """Opens the folder.

    Args:
      directory: `checkpoints/best`.
      read_only: creates and deletes nothing.
    """
    self._directory = directory
    self.manager = open_manager(directory, 2, read_only)

  @property
  def step(self) -> int | None:
    """The step of the best checkpoint; None if there is none."""
    return self.manager.latest_step()

  def save(self, step: int, variables: Tree, info: dict[str, object]) -> None:
    """Saves a new best, beside the one before; returns when it is written."""
    if step in self.manager.all_steps():
      self.manager.delete(step)  # Written by a run that was then killed.
    items = {
      "variables": ocp.args.StandardSave(variables),
      "info": ocp.args.JsonSave(info),
    }
    save(self.manager, step, items)
    self.manager.wait_until_finished()

  def delete_older(self, latest: int | None) -> None:
    """Deletes what was the best before.

    Args:
      latest: the step of the latest complete checkpoint of the run, which knows
        the last best up to that step.
    """
    known = [s for s in self.manager.all_steps() if s <= (latest or 0)]
    for step in sorted(known)[:-1]:
      self.manager.delete(step)

  def remove_newer(self, latest: int | None, set_aside: bool) -> list[str]:
    """Removes what is of an epoch that the run no longer knows.

    Such a best was saved right before the run was cut off. Its epoch is trained
    again, and may then be another one.

    Args:
      latest: as for `delete_older`.
      set_aside: renames it, instead of deleting it.

    Returns:
      What was renamed, in words.
    """
    messages = []
    for step in self.manager.all_steps():
      if step <= (latest or 0):
        continue
      if not set_aside:
        self.manager.delete(step)
        continue
      name = f"damaged-best-{step}-newer-than-the-run"
      place = unused_path(self._directory.parent / name)
      (self._directory / str(step)).rename(place)
      messages.append(
        f"checkpoint {self._directory / str(step)} is newer than the rest of"
        f" the run: renamed to {place.name}"
      )
    if messages:
      self.manager.reload()
    return messages
