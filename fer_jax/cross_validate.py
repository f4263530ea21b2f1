r"""Trains a model on every fold of a dataset, and pools the results.

fer-jax cross-validate --config=jiang_ri:ckplus [--workdir=DIR] \
  [--config.FIELD=VALUE ...]

Fold k is trained in WORKDIR/fold_k, as `fer-jax train` does. The same command
resumes where it was interrupted; finished folds are not trained again.
"""

from collections.abc import Sequence

from fer_jax.cli import app, recipe_flags


def define_flags() -> None:
  """Defines the flags."""
  recipe_flags.define_flags(help_text="Folder; default runs/RECIPE-DATASET.")


def main(argv: Sequence[str]) -> None:
  """Trains all folds as the flags say."""
  del argv
  recipe = recipe_flags.read_flags()
  from fer_jax.training import cross_validation

  print(cross_validation.cross_validate(recipe.config, recipe.workdir))


COMMAND = app.Command(
  "cross-validate", __doc__, define_flags, main, handles_signals=True
)

if __name__ == "__main__":
  COMMAND.run()
