"""Writes a trained model as files that run without this package.

fer-jax export [--workdir=W] [--format=onnx] [--output=DIR]
"""

from collections.abc import Sequence

from absl import flags

from fer_jax.cli import app, model_flags


def define_flags() -> None:
  """Defines the command's flags."""
  model_flags.define_workdir()
  flags.DEFINE_string("format", "stablehlo", "stablehlo | onnx.")
  flags.DEFINE_string(
    "output", "", "Folder; WORKDIR/export, or ./MODEL/export, if unset."
  )


def main(argv: Sequence[str]) -> None:
  """Exports as the flags say."""
  del argv
  given = flags.FLAGS
  model_flags.start()
  from fer_jax.api import export_model

  print(
    export_model(
      given.workdir,
      given.output or None,
      given.format,
      checkpoint=given.checkpoint,
    )
  )


COMMAND = app.Command("export", __doc__, define_flags, main)

if __name__ == "__main__":
  COMMAND.run()
