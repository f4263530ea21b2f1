r"""Trains several recipes with several seeds, and compares them.

python -m fer_jax.study --configs=configs/resnet18.py,configs/resnet50.py \
  [--seeds=0,1,2] [--workdir=runs/study] [--split=validation] \
  [--baseline=resnet18] [--processes=2] [--all_folds] \
  [--config.FIELD=VALUE ...]

What is done is not done again, so the same command goes on where it was
interrupted, and recipes or seeds can be added later. --config.FIELD=VALUE is
set in every recipe. Tables, pictures and one page of
them are in WORKDIR/report.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from fer_jax import errors
from fer_jax.cli import recipe_flags as command
from fer_jax.configs import default
from fer_jax.studies import (
  comparison,
  plan,
  run_results,
  study_report,
  training,
)
from fer_jax.training.runtime.signals import Interrupted


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list(
    "configs", None, "Recipes, files of configs/, by commas.", required=True
  )
  flags.DEFINE_list("seeds", ["0"], "A run of each recipe with each.")
  flags.DEFINE_string("workdir", "runs/study", "Where all runs go.")
  flags.DEFINE_string(
    "split", "validation", "What is compared: validation, test, or both by +."
  )
  flags.DEFINE_string(
    "baseline", "", "The recipe that others are tested against; the first."
  )
  flags.DEFINE_integer(
    "processes", 0, "Runs at once, each its own process.", lower_bound=0
  )
  flags.DEFINE_bool("all_folds", False, "Cross-validate: a run for each fold.")
  config_flags.DEFINE_config_dict(
    "config", default.get_config(), "Fields of every recipe.", lock_config=True
  )


def main(argv: Sequence[str]) -> None:
  """Studies what the flags say."""
  del argv
  given = flags.FLAGS
  command.start(given.config.compilation_cache)
  folder = Path(given.workdir).expanduser()
  runs = plan.plan(
    given.configs,
    _seeds(given.seeds),
    config_flags.get_override_values(given["config"]),
    folder,
    given.all_folds,
  )
  names = {run.recipe for run in runs}
  if given.baseline:
    errors.choose("--baseline", given.baseline, names)
  try:
    training.train(runs, given.processes)
  except Interrupted as e:
    print(e, file=sys.stderr)
    sys.exit(e.exit_code)
  recipes = comparison.compare(
    run_results.gather(runs, given.split), given.baseline
  )
  page = study_report.write(recipes, given.split, folder / "report")
  print((page.parent / "tables.md").read_text())
  print(f"wrote {page} and what it shows")


def _seeds(given: Sequence[str]) -> list[int]:
  try:
    seeds = [int(seed) for seed in given]
  except ValueError:
    seeds = [-1]
  if min(seeds, default=0) < 0:
    raise errors.UserError(
      f"--seeds={','.join(given)} must be numbers of at least 0, by commas"
    )
  return seeds


if __name__ == "__main__":
  define_flags()
  errors.run(main)
