r"""Makes a released model of a run: smaller, calibrated, with its scores.

python -m fer_jax.pretrained.release --workdir=runs/ferplus_resnet18-ferplus \
  --name=ferplus-resnet18 [--folder=fer_jax/pretrained/weights] \
  [--page=docs/models/ferplus-resnet18.md]

Reads the run's dataset for its validation split. With --page, the scores of the
file are written into that model card, as fer_jax.pretrained.card does.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jaxtyping import Float, Float32
from ml_collections import ConfigDict
from scipy import optimize, special

from fer_jax import config as configs
from fer_jax.errors import UserError
from fer_jax.evaluation import calibration, predictions
from fer_jax.evaluation.scores import leak_free_accuracy
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.object_stores.urls import require_local
from fer_jax.pretrained import card, released
from fer_jax.training.runtime import startup

CLASSIFIER = "fc"  # the last layer of the models that can be released


def release(
  workdir: str | Path,
  name: str,
  folder: Path = released.WEIGHTS,
  manual_dir: str | None = None,
  data_dir: str | None = None,
) -> dict[str, Any]:
  """Writes a run's best checkpoint as a released model.

  Kernels are rounded to float16. Then one temperature is fitted on the
  validation split (Guo et al. 2017, https://arxiv.org/abs/1706.04599, section
  4.2), and the classifier's weights are divided by it, so that whoever reads
  the file has calibrated probabilities.

  Args:
    workdir: of the run.
    name: of the released model.
    folder: where to.
    manual_dir: where the dataset's release lies, if not where the run's did.
    data_dir: where prepared data lie, if not where the run's did.

  Returns:
    The metadata written.

  Raises:
    UserError: the model cannot be released, or a file not read or written.
  """
  trained = TrainedModel.load(workdir)
  if CLASSIFIER not in trained.variables["params"]:
    raise UserError(
      f"model.name={trained.config.model.name} has no layer {CLASSIFIER!r},"
      " which the temperature is put into: release another model"
    )
  if trained.config.loss.output != "softmax":
    raise UserError(
      f"loss.output={trained.config.loss.output} has no temperature: release"
      " a model of loss.output=softmax"
    )
  _generalize(trained.config)
  rounded = jax.tree.map(
    lambda x: released.stored(np.asarray(x)).astype(np.float32),
    trained.variables,
  )
  info = trained.info | {
    "config": configs.to_json(trained.config),
    "name": name,
    "temperature": 1.0,
  }
  variables: dict[str, Any] = dict(rounded)
  with tempfile.TemporaryDirectory() as scratch:
    released.write(name, variables, info, Path(scratch))
    model = released.load(name, 256, Path(scratch))
  found = predictions.predict(
    [model], "validation", manual_dir=manual_dir, data_dir=data_dir
  )
  temperature = fit_temperature(_log(found.probabilities), found.targets)
  classifier = rounded["params"][CLASSIFIER]
  variables["params"] = rounded["params"] | {
    CLASSIFIER: jax.tree.map(lambda x: x / temperature, classifier)
  }
  info |= {
    "temperature": temperature,
    "validation": scores_of(found, temperature),
  }
  released.write(name, variables, info, folder)
  return info


def _generalize(config: ConfigDict) -> None:
  """Removes what is of the machine that trained the model, such as paths."""
  with config.unlocked():
    config.dtype = "float32"  # of the compute, on any platform
    config.dataset.manual_dir = config.dataset.data_dir = ""
    config.init_from = config.compilation_cache = ""
    if config.loss.teacher not in released.list_released():
      config.loss.teacher = ""


def fit_temperature(
  logits: Float[np.ndarray, "n k"],
  targets: np.ndarray,
) -> float:
  """Returns what logits are best divided by, for the lowest cross-entropy.

  Args:
    logits: of each class for each image, up to a constant for each image.
    targets: labels `[n]` or distributions `[n k]`.

  >>> logits = np.array([[4.0, 0.0], [4.0, 0.0], [0.0, 4.0], [0.0, 4.0]])
  >>> round(fit_temperature(logits, np.array([0, 1, 1, 1])), 2)
  3.64
  """
  if targets.ndim == 1:
    targets = np.eye(logits.shape[1])[targets]

  def cross_entropy(log_temperature: float) -> float:
    log_p = special.log_softmax(logits / np.exp(log_temperature), axis=1)
    return float(-(targets * log_p).sum())

  best = optimize.minimize_scalar(
    cross_entropy, bounds=(np.log(0.05), np.log(20)), method="bounded"
  )
  return float(np.exp(best.x))


def scores_of(
  found: predictions.Predictions, temperature: float
) -> dict[str, float]:
  """Returns accuracy and calibration, before and after the temperature."""
  right = found.predicted == found.labels
  logits = _log(found.probabilities)
  after = special.softmax(logits / temperature, axis=1)
  return {
    "images": len(right),
    "accuracy": float(right.mean()),
    "accuracy_without_leaks": leak_free_accuracy(right, found.leaks),
    "calibration_error_before": _error(found.probabilities, right),
    "calibration_error": _error(after, right),
  }


def _error(
  probabilities: Float32[np.ndarray, "n k"], right: np.ndarray
) -> float:
  return calibration.calibrate(probabilities.max(axis=1), right).error


def _log(
  probabilities: Float32[np.ndarray, "n k"],
) -> Float32[np.ndarray, "n k"]:
  """Returns finite logarithms, also of probabilities that underflowed to 0."""
  return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("workdir", None, "The run.", required=True)
  card.define_flags()


def main(argv: Sequence[str]) -> None:
  """Releases the run that the flags name."""
  del argv
  given = flags.FLAGS
  startup.start()
  folder = require_local(given.folder, "folder")
  data = given.manual_dir, given.data_dir
  info = release(given.workdir, given.name, folder, *data)
  if given.page:
    card.write(given.name, require_local(given.page, "page"), folder, *data)
  found = info["validation"]
  print(
    f"{given.name}: temperature {info['temperature']:.3f}, accuracy"
    f" {found['accuracy']:.1%} on {found['images']:,} images, calibration error"
    f" {found['calibration_error_before']:.3f} before and"
    f" {found['calibration_error']:.3f} after",
    file=sys.stderr,
  )


if __name__ == "__main__":
  from fer_jax.cli import app

  define_flags()
  app.run(main)
