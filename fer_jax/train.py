r"""Trains a model, or resumes a run that was interrupted.

fer-jax train --config=RECIPE [--workdir=DIR] [--config.FIELD=VALUE ...]

RECIPE is a name, such as resnet50 or jiang_ri:ckplus, or a Python file;
`fer-jax list recipes` shows the names and configs/default.py describes every
field. To resume a run, give the same command again.
"""

from collections.abc import Sequence

from fer_jax.cli import app, recipe_flags


def main(argv: Sequence[str]) -> None:
  """Trains as the flags say."""
  del argv
  recipe = recipe_flags.read_flags()
  from fer_jax.training.train_loop import train_and_evaluate

  print(train_and_evaluate(recipe.config, recipe.workdir))


COMMAND = app.Command("train", __doc__, recipe_flags.define_flags, main)

if __name__ == "__main__":
  COMMAND.run()
