r"""Searches a space of configurations for the best validation score.

fer-jax sweep --config=lewis_resnet18:small --space=lewis [--trials=N] \
  [--workdir=runs/sweep] [--workers=2] [--config.FIELD=VALUE ...]

Every trial is a run in WORKDIR/trials. The same command resumes where it was
interrupted; run on several machines that share WORKDIR, they search together.
Fields that flags set are not searched. WORKDIR/report holds the best
configuration, tables and plots. Needs the optional extra `sweep`.
"""

import shlex
from collections.abc import Sequence

from absl import flags

from fer_jax.cli import app, recipe_flags


def define_flags() -> None:
  """Defines the command's flags."""
  recipe_flags.define_flags("runs/sweep", "Folder of all trials.")
  flags.DEFINE_string(
    "space", None, "Search space, by name or file.", required=True
  )
  flags.DEFINE_integer(
    "trials", 0, "Trials in total; 0: all of a finite space.", lower_bound=0
  )
  flags.DEFINE_string("sampler", "tpe", "tpe | grid | random.")
  flags.DEFINE_string("pruner", "median", "median | hyperband | none.")
  flags.DEFINE_integer(
    "workers", 1, "Trials at once, each in a process.", lower_bound=1
  )
  flags.DEFINE_string("storage", "", "Optuna's database URL, or a file.")


def main(argv: Sequence[str]) -> None:
  """Searches as the flags say."""
  del argv
  given = flags.FLAGS
  recipe = recipe_flags.read_flags()
  from fer_jax.sweeps.run_sweep import run_sweep

  sweep = run_sweep(
    recipe.config,
    given.space,
    recipe.workdir,
    num_trials=given.trials,
    sampler=given.sampler,
    pruner=given.pruner,
    workers=given.workers,
    storage=given.storage,
    fixed=recipe.overrides,
  )
  print(f"\n{sweep}\nwrote {sweep.page} with its plots and tables")
  if sweep.best:
    place = recipe.workdir / "best"
    options = [f"--config={sweep.best_config}", f"--workdir={place}"]
    print(f"train the best: fer-jax train {shlex.join(options)}")


COMMAND = app.Command(
  "sweep", __doc__, define_flags, main, handles_signals=True
)

if __name__ == "__main__":
  COMMAND.run()
