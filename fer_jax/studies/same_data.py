"""Checks that the runs of a study were trained on the same data."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from fer_jax.data.splits import differences
from fer_jax.errors import UserError
from fer_jax.studies.plan import Run
from fer_jax.training import run_data


def check(runs: Sequence[Run], left: Sequence[Run] = ()) -> None:
  """Compares what the checkpoints of runs say of their data.

  Args:
    runs: of the study; those without a checkpoint are left out.
    left: the runs still to be trained: the data in their folders must not have
      changed either, whichever folds or classes a run selects.

  Raises:
    UserError: runs that select the same data were trained on other data.
  """
  found: dict[str, tuple[Run | None, run_data.Description]] = {}
  for run in runs:
    its = run_data.read_description(run.workdir, run.config)
    if its is None:
      continue
    key = run_data.selection(run.config)
    if key not in found:
      folders, now = _folders(run.config), None
      if any(_folders(each.config) == folders for each in left):
        now = run_data.describe(run.config)
      found[key] = (run, its) if now is None else (None, now)
    other, data = found[key]
    if changed := differences(its, data):
      which = f"than {other}" if other else "than there are now"
      raise UserError(
        f"{run} was trained on other data {which} ({'; '.join(changed)}): use"
        f" the same data, or another workdir, or remove {run.workdir} to train"
        " it again"
      )


def _folders(config: ConfigDict) -> tuple[str, str, str]:
  """Returns where the data of a run come from."""
  dataset = config.dataset
  return dataset.name, dataset.manual_dir, dataset.data_dir
