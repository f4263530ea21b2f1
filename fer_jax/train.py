r"""Trains a model.

python -m fer_jax.train --config=configs/resnet50.py \
  [--workdir=runs/NAME] [--config.FIELD=VALUE ...]

Every field is described in configs/default.py. The same command resumes a run
that was interrupted or killed.
"""

import sys
from collections.abc import Sequence

from fer_jax import errors
from fer_jax.cli import recipe_flags
from fer_jax.training import train_loop
from fer_jax.training.runtime.signals import Interrupted


def main(argv: Sequence[str]) -> None:
  """Trains as the flags say."""
  del argv
  config, workdir = recipe_flags.read_flags()
  try:
    print(train_loop.train_and_evaluate(config, workdir))
  except Interrupted as e:
    print(e, file=sys.stderr)
    sys.exit(e.exit_code)


if __name__ == "__main__":
  recipe_flags.define_flags()
  errors.run(main)
