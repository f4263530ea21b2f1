"""Facial expression recognition in JAX and Flax, at full throughput."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from fer_jax.inference.predictor import Predictor

__version__ = "0.1.0"


def load(workdir: str | os.PathLike[str], **options: Any) -> "Predictor":
  """Loads a trained model for use: `load(workdir).predict(images)`.

  Args:
    workdir: of a run of `python -m fer_jax.train`.
    **options: of `fer_jax.inference.trained_model.Trained.load`: `checkpoint`,
      `batch_size`.

  Returns:
    A predictor, see `fer_jax.inference.predictor`.

  Raises:
    UserError: there is no such run.
  """
  # Here, so that `import fer_jax` is quick.
  from fer_jax.inference.predictor import Predictor
  from fer_jax.inference.trained_model import Trained

  return Predictor(Trained.load(workdir, **options))
