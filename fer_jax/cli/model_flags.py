"""Flags of the commands that use a trained model."""

from absl import flags

# Checked by what they are given to, which lists the choices.
CHECKPOINTS = "best | latest"
VIEWS = "none | flip | ten_crop"


def define_workdir() -> None:
  """Defines --workdir and --checkpoint."""
  flags.DEFINE_string(
    "workdir", None, "Run, or released model; the default one if unset."
  )
  define_checkpoint()


def define_checkpoint() -> None:
  """Defines --checkpoint."""
  flags.DEFINE_string("checkpoint", "best", f"Weights: {CHECKPOINTS}.")


def define_tta() -> None:
  """Defines --tta."""
  flags.DEFINE_string("tta", "none", f"Test-time augmentation: {VIEWS}.")


def start() -> None:
  """Configures the process for computing."""
  from fer_jax.training.runtime import startup

  startup.start()
