"""What differs in checkpoints that earlier versions wrote.

They have no checksums. In development versions before 0.1.0, the moving
averages were those of the parameters alone.
"""

import json
import pathlib
from collections.abc import Iterable

import orbax.checkpoint as ocp

from fer_jax.checksums import Damage

_AVERAGES = {"params", "batch_stats"}  # what `TrainState.ema` holds


def find_damage(
  manager: ocp.CheckpointManager, step: int, folder: pathlib.Path
) -> Damage | None:
  """Reads all of a checkpoint that has no checksums, to find damage.

  Args:
    manager: of the checkpoints to resume from.
    step: of the checkpoint.
    folder: where the checkpoint is.

  Raises:
    PermissionError: a file may not be read.
  """
  try:
    saved = folder / "iterator"
    iterators = [*saved.glob("*.json"), *saved.glob("metadata")]
    if not iterators:  # Deleting it was interrupted.
      return Damage(saved, "missing file")
    for path in iterators:
      json.loads(path.read_bytes())
    restored = manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(), info=ocp.args.JsonRestore()
      ),
    )
    dict(restored.info)
  except PermissionError:
    raise
  except Exception:  # orbax and tensorstore raise many types.
    return Damage(folder, "unreadable file")
  return None


def has_averages_of_params_only(folder: pathlib.Path) -> bool:
  """Returns whether a saved state has moving averages of parameters alone.

  Args:
    folder: of the state, in a checkpoint of a run with moving averages.
  """
  saved = ocp.StandardCheckpointHandler().metadata(folder)["ema"]
  return are_params_only(saved)


def are_params_only(averages: Iterable[str]) -> bool:
  """Returns whether moving averages are those of the parameters alone.

  Args:
    averages: the names at the top of their tree.
  """
  return not _AVERAGES.issuperset(averages)
