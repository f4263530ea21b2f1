"""Knowledge distillation: trained models' probabilities in the targets.

As Hinton et al. (2015, arXiv:1503.02531) at temperature 1, with fixed targets:
the teacher sees every training image once before training, without
augmentation, and its mirror image. A step then costs what it does without a
teacher. Several models teach the mean of their probabilities. These are kept in
the user's cache folder, so that a resumed run does not compute them again.
"""

import dataclasses
import functools
import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float32
from ml_collections import ConfigDict

from fer_jax.console import progress
from fer_jax.data.splits import Dataset, Split
from fer_jax.errors import UserError
from fer_jax.files import atomic_write, cache_folder
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.pretrained import released

_TTA = "flip"
_BATCH_SIZE = 128  # Larger ones can take gigabytes on a CPU.


@dataclasses.dataclass(frozen=True)
class Teacher:
  """Trained models whose probabilities become a part of the targets.

  Attributes:
    models: the trained models by name, as the configuration gives it.
    weight: the part of the targets, in (0, 1].
  """

  models: Mapping[str, TrainedModel]
  weight: float

  def check_fits(self, dataset: Dataset) -> None:
    """Raises UserError if the dataset has other classes or images."""
    for name, model in self.models.items():
      if model.class_names != dataset.class_names:
        raise UserError(
          f"loss.teacher={name} has the classes"
          f" {', '.join(model.class_names)}, but dataset {dataset.name} has"
          f" {', '.join(dataset.class_names)}: use a teacher of the same"
          " classes in the same order, or loss.teacher= for none"
        )
      if model.image_shape != dataset.image_shape:
        its, ours = (
          " x ".join(map(str, shape))
          for shape in (model.image_shape, dataset.image_shape)
        )
        raise UserError(
          f"loss.teacher={name} was trained on images of {its}, but those of"
          f" dataset {dataset.name} are {ours}: use a teacher for these images,"
          " or loss.teacher= for none"
        )

  @functools.cached_property
  def digest(self) -> str:
    """The SHA-256 of what its probabilities depend on, besides the images."""
    digests = [_digest(model) for model in self.models.values()]
    if len(digests) == 1:
      return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()

  def teach(self, split: Split) -> Split:
    """Returns a split whose targets contain the models' probabilities.

    They are (1 - weight) * target + weight * probabilities, of several models
    the mean of their probabilities.
    """
    lessons = [_probabilities(*item, split) for item in self.models.items()]
    probabilities = np.mean(lessons, axis=0)
    targets = split.targets()
    if targets.ndim == 1:
      targets = np.eye(probabilities.shape[1], dtype=np.float32)[targets]
    weight = np.float32(self.weight)
    return split.with_targets((1 - weight) * targets + weight * probabilities)


def load_teacher(config: ConfigDict) -> Teacher | None:
  """Returns the teacher of a configuration; None if it has none.

  Args:
    config: the section `loss`; `teacher` is a released model or the workdir of
      a run, or several, comma-separated; "" for none.

  Raises:
    UserError: a teacher cannot be read.
  """
  models = {}
  for name in released.split_names(config.teacher):
    try:
      models[name] = released.load_model(name, batch_size=_BATCH_SIZE)
    except UserError as e:
      raise UserError(f"loss.teacher={name} cannot be used: {e}") from e
  return Teacher(models, config.teacher_weight) if models else None


def _digest(model: TrainedModel) -> str:
  """Returns the SHA-256 of what a model's probabilities depend on."""
  config = model.config
  settings = [config.model.to_dict(), config.input.to_dict(), config.dtype]
  digest = hashlib.sha256(json.dumps([*settings, _TTA], default=str).encode())
  for path, leaf in jax.tree.leaves_with_path(model.variables):
    digest.update(jax.tree_util.keystr(path).encode())
    digest.update(np.asarray(leaf).tobytes())
  return digest.hexdigest()


def _probabilities(
  name: str, model: TrainedModel, split: Split
) -> Float32[np.ndarray, "n k"]:
  """Returns a model's probabilities of a split, cached if they are."""
  digest = hashlib.sha256((_digest(model) + split.fingerprint).encode())
  path = cache_folder() / "teachers" / f"{digest.hexdigest()[:32]}.npz"
  probabilities = _read(path, (len(split), len(model.class_names)))
  if probabilities is None:
    probabilities = _predict(name, model, split)
    _write(path, probabilities)
  return probabilities


def _predict(
  name: str, model: TrainedModel, split: Split
) -> Float32[np.ndarray, "n k"]:
  size = model.batch_size
  starts = range(0, len(split), size)
  print(f"{name} teaches {len(split):,} images", flush=True)
  parts = [
    model.probabilities(
      split.read(np.arange(start, min(start + size, len(split))))["image"], _TTA
    )
    for start in progress(starts, f"{name} teaches", unit="batches")
  ]
  return np.concatenate(parts)


def _read(
  path: Path, shape: tuple[int, int]
) -> Float32[np.ndarray, "n k"] | None:
  """Reads cached probabilities; None if there are none, or they are damaged."""
  try:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
      probabilities = arrays["probabilities"]  # This checks a CRC.
  except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
    return None
  fits = probabilities.shape == shape and probabilities.dtype == np.float32
  return probabilities if fits else None


def _write(path: Path, probabilities: Float32[np.ndarray, "n k"]) -> None:
  try:
    with atomic_write(path, parents=True) as draft:
      np.savez(draft, probabilities=probabilities)
  except OSError as e:
    print(f"cannot keep the teacher's probabilities in {path}: {e}")
