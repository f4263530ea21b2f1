r"""Trains a model, or resumes a run that was interrupted.

fer-jax train --config=RECIPE [--workdir=DIR] [--config.FIELD=VALUE ...]

RECIPE is a name, such as resnet50 or jiang_ri:ckplus, or a Python file;
`fer-jax list recipes` shows the names and --helpfull describes every field. To
resume a run, give the same command again.

Several processes or machines train together with --distributed.
"""

from collections.abc import Sequence

from fer_jax.cli import app, distributed_flags, recipe_flags


def define_flags() -> None:
  """Defines the command's flags."""
  recipe_flags.define_flags()
  distributed_flags.define_flags()


def main(argv: Sequence[str]) -> None:
  """Trains as the flags say."""
  del argv
  processes = distributed_flags.read_flags()
  recipe = recipe_flags.read_flags()
  from fer_jax.training.runtime import distributed
  from fer_jax.training.train_loop import train_and_evaluate

  with distributed.connected(processes) as is_first:
    result = train_and_evaluate(recipe.config, recipe.workdir)
  if is_first:
    print(result)


COMMAND = app.Command(
  "train", __doc__, define_flags, main, handles_signals=True
)

if __name__ == "__main__":
  COMMAND.run()
