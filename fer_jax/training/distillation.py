"""Knowledge distillation: a trained model's probabilities in the targets.

As Hinton et al. (2015, arXiv:1503.02531) at temperature 1, with fixed targets:
the teacher sees every training image once before training, without
augmentation, and its mirror image. A step then costs what it does without a
teacher. The probabilities are kept in the user's cache folder, so that a
resumed run does not compute them again.
"""

import dataclasses
import functools
import hashlib
import json
import zipfile
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float32
from ml_collections import ConfigDict

from fer_jax.data.preparation_progress import progress
from fer_jax.data.splits import Dataset, Split
from fer_jax.errors import UserError
from fer_jax.files import atomic_write, cache_folder
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.pretrained import released

_TTA = "flip"
_BATCH_SIZE = 128  # Larger ones can take gigabytes on a CPU.


@dataclasses.dataclass(frozen=True)
class Teacher:
  """A trained model whose probabilities become a part of the targets.

  Attributes:
    name: as the configuration gives it.
    model: the trained model.
    weight: the part of the targets, in (0, 1].
  """

  name: str
  model: TrainedModel
  weight: float

  def check_fits(self, dataset: Dataset) -> None:
    """Raises UserError if the dataset has other classes or images."""
    model = self.model
    if model.class_names != dataset.class_names:
      raise UserError(
        f"loss.teacher={self.name} has the classes"
        f" {', '.join(model.class_names)}, but dataset {dataset.name} has"
        f" {', '.join(dataset.class_names)}: use a teacher of the same classes"
        " in the same order, or loss.teacher= for none"
      )
    if model.image_shape != dataset.image_shape:
      its, ours = (
        " x ".join(map(str, shape))
        for shape in (model.image_shape, dataset.image_shape)
      )
      raise UserError(
        f"loss.teacher={self.name} was trained on images of {its}, but those of"
        f" dataset {dataset.name} are {ours}: use a teacher for these images,"
        " or loss.teacher= for none"
      )

  @functools.cached_property
  def digest(self) -> str:
    """The SHA-256 of what its probabilities depend on, besides the images."""
    config = self.model.config
    settings = [config.model.to_dict(), config.input.to_dict(), config.dtype]
    digest = hashlib.sha256(json.dumps([*settings, _TTA], default=str).encode())
    for path, leaf in jax.tree.leaves_with_path(self.model.variables):
      digest.update(jax.tree_util.keystr(path).encode())
      digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()

  def teach(self, split: Split) -> Split:
    """Returns a split whose targets contain the teacher's probabilities.

    They are (1 - weight) * target + weight * probabilities.
    """
    num_classes = len(self.model.class_names)
    path = self._cached_file(split)
    probabilities = _read(path, (len(split), num_classes))
    if probabilities is None:
      probabilities = self._predict(split)
      _write(path, probabilities)
    targets = split.targets()
    if targets.ndim == 1:
      targets = np.eye(num_classes, dtype=np.float32)[targets]
    weight = np.float32(self.weight)
    return split.with_targets((1 - weight) * targets + weight * probabilities)

  def _predict(self, split: Split) -> Float32[np.ndarray, "n k"]:
    images, size = split.arrays()["image"], self.model.batch_size
    starts = range(0, len(images), size)
    print(f"{self.name} teaches {len(images):,} images", flush=True)
    parts = [
      self.model.probabilities(images[start : start + size], _TTA)
      for start in progress(starts, f"{self.name} teaches", unit="batches")
    ]
    return np.concatenate(parts)

  def _cached_file(self, split: Split) -> Path:
    digest = hashlib.sha256((self.digest + split.fingerprint).encode())
    return cache_folder() / "teachers" / f"{digest.hexdigest()[:32]}.npz"


def load_teacher(config: ConfigDict) -> Teacher | None:
  """Returns the teacher of a configuration; None if it has none.

  Args:
    config: the section `loss`; `teacher` is a released model or the workdir of
      a run, "" for none.

  Raises:
    UserError: the teacher cannot be read.
  """
  if not config.teacher:
    return None
  try:
    model = released.load_model(config.teacher, batch_size=_BATCH_SIZE)
  except UserError as e:
    raise UserError(f"loss.teacher={config.teacher} cannot be used: {e}") from e
  return Teacher(config.teacher, model, config.teacher_weight)


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
