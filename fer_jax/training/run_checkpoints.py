"""The checkpoints of a run that trains with one process or several.

The first process reads and writes them, so that the others need no access to
the workdir; what it reads, it shares with them. A checkpoint is the same
whatever the number of processes, and any number of them resumes it.
"""

from collections.abc import Callable

import grain

from fer_jax.training.checkpoints import Checkpoints, Info
from fer_jax.training.runtime.process_group import ProcessGroup
from fer_jax.training.train_state import TrainState, Tree


class RunCheckpoints:
  """The checkpoints of a run; all processes call the same methods.

  Attributes:
    files: the workdir's, in the first process; None in the others.
  """

  def __init__(self, files: Checkpoints | None, group: ProcessGroup):
    """Reads nothing yet.

    Args:
      files: as the attribute.
      group: the processes of the run.
    """
    self.files = files
    self._group = group

  def set_aside_damaged(self) -> list[str]:
    """Makes the latest undamaged checkpoint the latest one; see `Checkpoints`.

    Returns:
      What was damaged, and what is used instead.
    """
    return self._group.share(
      lambda: self.files.set_aside_damaged() if self.files else []
    )

  def info(self) -> Info | None:
    """Returns what the latest checkpoint says; None if there is none."""

    def read() -> Info | None:
      if self.files is None or self.files.latest_step is None:
        return None
      return self.files.info()

    return self._group.share(read)

  def has_best(self) -> bool:
    """Returns whether there is a checkpoint of the best epoch."""
    return self._group.share(
      lambda: self.files is not None and self.files.best_step is not None
    )

  def restore(
    self, like: TrainState, iterator: grain.DatasetIterator | None
  ) -> tuple[TrainState, Info]:
    """Restores the latest checkpoint; the iterator is set in place.

    Args:
      like: host arrays of the same shapes and types.
      iterator: over the same batches; None leaves it out.
    """
    info = self.info()
    assert info is not None
    state = self.files.restore(like, iterator)[0] if self.files else like
    if iterator is not None:
      iterator.set_state(self._group.share(iterator.get_state))
    return self._group.share_arrays(state, like), info

  def restore_best(self, like: Tree) -> Tree:
    """Restores the variables of the best epoch.

    Args:
      like: `params` and `batch_stats`, of the same shapes and types.
    """
    if self.files is None:
      return self._group.share_arrays(like, like)
    best, _ = self.files.restore_variables("best")
    return self._group.share_arrays(best, like)

  def save(
    self,
    step: int,
    fetch_state: Callable[[], Tree],
    iterator: grain.DatasetIterator,
    info: Info,
  ) -> None:
    """Saves everything needed to resume; returns while it is being written.

    Args:
      step: number of batches seen.
      fetch_state: returns host arrays; is called where they are written.
      iterator: its next batch is the one after `step`.
      info: configuration, class names, loop state.
    """
    if self.files:
      self.files.save(step, fetch_state(), iterator, info)

  def save_best(
    self, step: int, fetch_variables: Callable[[], Tree], info: Info
  ) -> None:
    """Saves what evaluation needs; see `Checkpoints`."""
    if self.files:
      self.files.save_best(step, fetch_variables(), info)

  def close(self) -> None:
    """Waits until everything is written."""
    if self.files:
      self.files.close()
