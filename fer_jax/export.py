"""Writes a trained model as files that run without this package.

python -m fer_jax.export [--workdir=W] [--format=onnx] [--output=DIR]
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from fer_jax import errors
from fer_jax.cli import recipe_flags as command
from fer_jax.inference import exporting
from fer_jax.inference.trained_model import CHECKPOINTS
from fer_jax.pretrained import released


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string(
    "workdir", None, "A run, or a released model; a released one if not given."
  )
  flags.DEFINE_enum("checkpoint", "best", CHECKPOINTS, "Which of its weights.")
  flags.DEFINE_enum(
    "format",
    "stablehlo",
    exporting.FORMATS,
    "stablehlo: programs for JAX; onnx: one file for ONNX runtimes.",
  )
  flags.DEFINE_string("output", "", "The folder; WORKDIR/export if not given.")


def main(argv: Sequence[str]) -> None:
  """Exports as the flags say."""
  del argv
  given = flags.FLAGS
  command.start()
  trained = released.load_model(given.workdir, given.checkpoint)
  folder = Path(given.output or trained.workdir / "export").expanduser()
  for path in exporting.export(trained, folder, given.format):
    print(f"{path}  {path.stat().st_size / 1e6:,.2f} MB")


if __name__ == "__main__":
  define_flags()
  errors.run(main)
