r"""Searches a space of configurations for the best on validation images.

python -m fer_jax.sweep --config=configs/lewis_resnet18.py:small \
  --space=configs/sweeps/lewis.py [--workdir=runs/sweep] [--trials=N] \
  [--sampler=tpe] [--pruner=median] [--workers=2] [--storage=URL] \
  [--config.FIELD=VALUE ...]

Every trial is a run in WORKDIR/trials. What is done is not done again: the
same command goes on where it was interrupted, in the middle of a trial, too;
given on several machines that share WORKDIR, they search together. A field
that is set on the command line is not searched. Table, pictures, one page of
them and the best configuration are in WORKDIR/report.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from fer_jax import errors
from fer_jax.cli import recipe_flags as command
from fer_jax.sweeps import plan
from fer_jax.training.runtime.signals import Interrupted


def define_flags() -> None:
  """Defines the command's flags."""
  command.define_flags("runs/sweep", "trials go to trials/ there")
  flags.DEFINE_string(
    "space", None, "What is searched, a file of configs/sweeps/.", required=True
  )
  flags.DEFINE_integer(
    "trials", 0, "In all; 0 is all of a space that ends.", lower_bound=0
  )
  flags.DEFINE_enum(
    "sampler", "tpe", plan.SAMPLERS, "Bayesian (tpe), all in turn, or random."
  )
  flags.DEFINE_enum(
    "pruner", "median", plan.PRUNERS, "Ends trials of a bad validation loss."
  )
  flags.DEFINE_integer(
    "workers", 1, "Trials at once, each process its own.", lower_bound=1
  )
  flags.DEFINE_string(
    "storage", "", "Of optuna: a URL of a database, or a journal's file."
  )


def main(argv: Sequence[str]) -> None:
  """Searches as the flags say."""
  del argv
  given = flags.FLAGS
  config, _ = command.read_flags()
  planned = plan.plan(
    config,
    given.space,
    config_flags.get_override_values(given["config"]),
    Path(given.workdir).expanduser(),
    storage=given.storage,
    sampler=given.sampler,
    pruner=given.pruner,
    num_trials=given.trials,
  )
  try:
    from fer_jax.sweeps import search
  except ModuleNotFoundError as e:
    raise errors.UserError(
      f"a sweep needs the package {e.name}: pip install -e '.[sweep]'"
    ) from e
  try:
    search.search(planned, given.workers)
  except Interrupted as e:
    print(e, file=sys.stderr)
    sys.exit(e.exit_code)


if __name__ == "__main__":
  define_flags()
  errors.run(main)
