"""Opens orbax's manager of a folder of checkpoints, and explains its errors."""

import pathlib
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import jax
import orbax.checkpoint as ocp

from fer_jax import checksums
from fer_jax.errors import UserError, one_line

# How a checkpoint is called while another one of the same step is written.
REPLACED = "replaced-"
MAX_READS = 5  # of a checkpoint that a running training replaces

# What to do, in training and when a trained model is read.
_RESUME = (
  "Earlier checkpoints are intact; fix the cause (disk space, permissions) and"
  " rerun the command to resume"
)
READ_OTHER = (
  "It cannot be read: use the other one of checkpoint=best and"
  " checkpoint=latest, or resume training"
)


def open_manager(
  directory: pathlib.Path, keep: int, read_only: bool
) -> ocp.CheckpointManager:
  """Opens a folder of checkpoints, which this process alone writes or reads.

  Args:
    directory: is created if necessary.
    keep: number of latest checkpoints to keep.
    read_only: creates and deletes nothing.
  """
  process = jax.process_index()
  several = jax.process_count() > 1
  alone = ocp.options.MultiprocessingOptions(
    primary_host=process,
    active_processes={process} if several else None,
    barrier_sync_key_prefix=f"process_{process}" if several else None,
  )
  if several and not read_only:
    directory.mkdir(parents=True, exist_ok=True)
  # orbax's own `read_only` warns about every directory.
  options = ocp.CheckpointManagerOptions(
    max_to_keep=None if read_only else keep,
    cleanup_tmp_directories=not read_only,
    create=not (read_only or several),
    multiprocessing_options=alone,
    # Called when all files are written, before the checkpoint is committed.
    async_options=ocp.AsyncOptions(
      post_finalization_callback=lambda: _write_checksums(directory),
      # In the background, a folder that cannot be made is an error only after
      # five minutes of waiting for it.
      create_directories_asynchronously=False,
    ),
  )
  for _ in range(MAX_READS):
    try:
      return ocp.CheckpointManager(directory, options=options)
    except FileNotFoundError as e:
      # A run that is training deleted a checkpoint while they were listed.
      if not read_only or not directory.exists():
        raise
      error = e
  raise error


def save(
  manager: ocp.CheckpointManager,
  step: int,
  items: Mapping[str, ocp.args.CheckpointArgs],
) -> None:
  """Starts to save a checkpoint.

  Raises:
    ValueError: there is a newer one, after which orbax would save nothing.
  """
  if not manager.save(step, args=ocp.args.Composite(**items)):
    raise ValueError(
      f"step {step} is not after step {manager.latest_step()}, the latest"
    )


def _write_checksums(directory: pathlib.Path) -> None:
  """Writes the checksums of the checkpoint that is being saved."""
  for folder in directory.glob("*.orbax-checkpoint-tmp*"):
    if folder.name.partition(".")[0].isdigit():
      checksums.write(folder)


def restore_replaced(directory: pathlib.Path) -> None:
  """Puts back checkpoints whose replacements were not completed."""
  for replaced in directory.glob(f"{REPLACED}*"):
    place = directory / replaced.name.removeprefix(REPLACED)
    if place.exists():
      shutil.rmtree(replaced)
    else:
      replaced.rename(place)


@contextmanager
def named_errors(
  directory: pathlib.Path, advice: str = _RESUME
) -> Iterator[None]:
  """Turns errors of a full or broken disk into a one-line UserError."""
  try:
    yield
  except (OSError, ValueError, RuntimeError, KeyError) as e:
    raise UserError(
      f"checkpoint in {directory}: {one_line(e)}. {advice}"
    ) from e
