r"""Trains a model on every fold of a data set, and pools the results.

python -m fer_jax.cross_validate --config=configs/jiang_ri.py:ckplus \
  [--workdir=runs/NAME] [--config.FIELD=VALUE ...]

Fold k is trained in WORKDIR/fold_k, as fer_jax.train would. The same command
goes on where it was interrupted; folds that are done are not trained again.
"""

import sys
from collections.abc import Sequence

from fer_jax import errors
from fer_jax.cli import recipe_flags
from fer_jax.training import cross_validation
from fer_jax.training.runtime.signals import Interrupted


def main(argv: Sequence[str]) -> None:
  """Trains all folds as the flags say."""
  del argv
  config, workdir = recipe_flags.read_flags()
  try:
    print(cross_validation.cross_validate(config, workdir))
  except Interrupted as e:
    print(e, file=sys.stderr)
    sys.exit(e.exit_code)


if __name__ == "__main__":
  recipe_flags.define_flags()
  errors.run(main)
