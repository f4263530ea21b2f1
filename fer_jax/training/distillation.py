"""Knowledge distillation: a trained model's probabilities in the targets.

As Hinton et al. (2015, arXiv:1503.02531) at temperature 1, with fixed targets:
the teacher sees every training image once before training, without
augmentation, and its mirror image. A step then costs what it does without a
teacher. The probabilities are kept in the user's cache folder, so that a
resumed run does not compute them again.
"""

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


def load_teacher(config: ConfigDict) -> TrainedModel | None:
  """Returns the teacher of a configuration; None if it has none.

  Args:
    config: the section `loss`; `teacher` is a released model or the workdir of
      a run, "" for none.

  Raises:
    UserError: the teacher cannot be read.
  """
  return released.load_model(config.teacher) if config.teacher else None


def train_split(
  config: ConfigDict, teacher: TrainedModel | None, dataset: Dataset
) -> Split:
  """Returns the training split, with the teacher's share in its targets.

  Args:
    config: the section `loss`, with `teacher_weight`, w.
    teacher: of it.
    dataset: its splits stay as they are.

  Returns:
    Without a teacher, the dataset's split. Else one whose targets are
    (1 - w) * target + w * probabilities of the teacher.

  Raises:
    UserError: the teacher has other classes or images.
  """
  split = dataset.split("train")
  if teacher is None:
    return split
  _check_fits(config.teacher, teacher, dataset)
  path = _cached_file(teacher, split)
  probabilities = _read(path, (len(split), dataset.num_classes))
  if probabilities is None:
    probabilities = _predict(config.teacher, teacher, split)
    _write(path, probabilities)
  targets = split.targets()
  if targets.ndim == 1:
    targets = np.eye(dataset.num_classes, dtype=np.float32)[targets]
  weight = np.float32(config.teacher_weight)
  return split.with_targets((1 - weight) * targets + weight * probabilities)


def _check_fits(name: str, teacher: TrainedModel, dataset: Dataset) -> None:
  if teacher.class_names != dataset.class_names:
    raise UserError(
      f"loss.teacher={name} has the classes {', '.join(teacher.class_names)},"
      f" but dataset {dataset.name} has {', '.join(dataset.class_names)}: use"
      " a teacher of the same classes in the same order, or loss.teacher= for"
      " none"
    )
  if teacher.image_shape != dataset.image_shape:
    its, ours = (
      " x ".join(map(str, shape))
      for shape in (teacher.image_shape, dataset.image_shape)
    )
    raise UserError(
      f"loss.teacher={name} was trained on images of {its}, but those of"
      f" dataset {dataset.name} are {ours}: use a teacher for these images, or"
      " loss.teacher= for none"
    )


def _predict(
  name: str, teacher: TrainedModel, split: Split
) -> Float32[np.ndarray, "n k"]:
  images, size = split.arrays()["image"], teacher.batch_size
  starts = range(0, len(images), size)
  print(f"{name} teaches {len(images):,} images", flush=True)
  parts = [
    teacher.probabilities(images[start : start + size], _TTA)
    for start in progress(starts, f"{name} teaches", unit="batches")
  ]
  return np.concatenate(parts)


def _cached_file(teacher: TrainedModel, split: Split) -> Path:
  """Returns the file of a teacher's probabilities of a split."""
  config = teacher.config
  settings = [config.model.to_dict(), config.input.to_dict(), config.dtype]
  digest = hashlib.sha256(json.dumps([*settings, _TTA], default=str).encode())
  for path, leaf in jax.tree.leaves_with_path(teacher.variables):
    digest.update(jax.tree_util.keystr(path).encode())
    digest.update(np.asarray(leaf).tobytes())
  digest.update(split.fingerprint.encode())
  return cache_folder() / "teachers" / f"{digest.hexdigest()[:32]}.npz"


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
