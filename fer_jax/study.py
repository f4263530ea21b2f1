r"""Trains several recipes with several seeds, and compares them.

fer-jax study --configs=resnet18,resnet50 [--seeds=0,1,2] \
  [--workdir=runs/study] [--split=validation] [--config.FIELD=VALUE ...]

--config.FIELD=VALUE is set in every recipe. The same command resumes where it
was interrupted, and recipes or seeds can be added later: finished runs are not
trained again. WORKDIR/report holds tables and plots on one page.
"""

from collections.abc import Sequence

from absl import flags

from fer_jax.cli import app, config_overrides, model_flags
from fer_jax.errors import UserError


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("configs", None, "Recipes, by name or file.", required=True)
  config_overrides.define()
  flags.DEFINE_list("seeds", ["0"], "Seeds of the runs of each recipe.")
  flags.DEFINE_string("workdir", "runs/study", "Folder of all runs.")
  flags.DEFINE_string("split", "validation", "Split that is compared.")
  flags.DEFINE_string("baseline", "", "Recipe to compare with; the first.")
  flags.DEFINE_integer(
    "processes", 0, "Runs at once, each in a process.", lower_bound=0
  )
  flags.DEFINE_bool("all_folds", False, "A run for each fold, of ckplus.")


def main(argv: Sequence[str]) -> None:
  """Studies what the flags say."""
  del argv
  given = flags.FLAGS
  model_flags.start()
  from fer_jax.studies.run_study import run_study

  study = run_study(
    given.configs,
    _seeds(given.seeds),
    given.workdir,
    config_overrides.texts(given),
    split=given.split,
    baseline=given.baseline,
    processes=given.processes,
    all_folds=given.all_folds,
  )
  print(f"{study}\nwrote {study.page} with its plots and tables")


def _seeds(given: Sequence[str]) -> list[int]:
  try:
    seeds = [int(seed) for seed in given]
  except ValueError:
    seeds = [-1]
  if min(seeds, default=0) < 0:
    raise UserError(
      f"seeds={','.join(given)} must be numbers of at least 0, comma-separated"
    )
  return seeds


COMMAND = app.Command(
  "study", __doc__, define_flags, main, handles_signals=True
)

if __name__ == "__main__":
  COMMAND.run()
