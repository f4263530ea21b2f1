"""Predictions of one model or an ensemble for a split."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Bool, Float32, Int, UInt8
from tqdm import tqdm

from fer_jax.data.datasets import registry
from fer_jax.data.splits import Dataset, differences
from fer_jax.data.views import digests, labels_of
from fer_jax.errors import UserError, choose
from fer_jax.files import atomic_write
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.object_stores import urls
from fer_jax.text_output import csv_line
from fer_jax.training.workdir import read_config


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
  """Probabilities of every example of a split, and its targets.

  Attributes:
    split: "test", or several names joined by "+".
    class_names: names of the columns of `probabilities`.
    images: as stored.
    targets: labels `[n]` or distributions `[n k]`.
    rows: position of each example in the release.
    splits: split of each example.
    probabilities: `[n k]`.
    leaks: whether each image is also in the training split, byte for byte.
    file_names: the file of every row, as in `Dataset.file_names`.
  """

  split: str
  class_names: tuple[str, ...]
  images: UInt8[np.ndarray, "n h w c"]
  targets: np.ndarray
  rows: Int[np.ndarray, " n"]
  splits: list[str]
  probabilities: Float32[np.ndarray, "n k"]
  leaks: Bool[np.ndarray, " n"]
  file_names: Sequence[str] = ()

  @functools.cached_property
  def labels(self) -> Int[np.ndarray, " n"]:
    """True classes: of distributions, the most probable."""
    return labels_of(self.targets)

  @functools.cached_property
  def predicted(self) -> Int[np.ndarray, " n"]:
    """Most probable classes."""
    return self.probabilities.argmax(axis=1)

  def mistakes(self) -> Int[np.ndarray, " m"]:
    """Returns the indices of wrong predictions, the most confident first."""
    wrong = np.flatnonzero(self.predicted != self.labels)
    confidence = self.probabilities[wrong].max(axis=1)
    return wrong[np.argsort(-confidence, kind="stable")]

  def write_csv(self, path: Path) -> None:
    """Writes a line per example: split, row, target, prediction, all scores.

    After the row comes the image's file, of datasets that have `file_names`.
    """
    file = ["file"] if self.file_names else []
    header = ["split", "row", *file, "target", "prediction", *self.class_names]
    lines = [csv_line(header)]
    for i, probabilities in enumerate(self.probabilities):
      target = self.class_names[self.labels[i]]
      prediction = self.class_names[self.predicted[i]]
      row = int(self.rows[i])
      file = [self.file_names[row]] if self.file_names else []
      where = (self.splits[i], row, *file, target, prediction)
      lines.append(csv_line([*where, *(f"{p:.6f}" for p in probabilities)]))
    with atomic_write(path) as temporary:
      temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def predict(
  trained: Sequence[TrainedModel],
  split: str = "test",
  tta: str = "none",
  manual_dir: urls.PathLike | None = None,
  data_dir: urls.PathLike | None = None,
) -> Predictions:
  """Runs one model, or the mean of several, over a split.

  Args:
    trained: models of the same classes; each one preprocesses the images as in
      its training.
    split: a split of the first model's dataset, or several joined by "+", such
      as "validation+test".
    tta: test-time augmentation, a key of `tta.VIEWS`.
    manual_dir: folder of the release; None for the one used in training.
    data_dir: folder of prepared datasets; None for the one used in training.

  Raises:
    UserError: the models' classes or image shapes differ, or the split has no
      examples.
  """
  first = trained[0]
  for other in trained[1:]:
    _check_ensemble(first, other)
  dataset = open_dataset(first, manual_dir, data_dir)
  names = split.split("+")
  if len(set(names)) < len(names):
    raise UserError(
      f"split={split} contains a split twice: name each split once"
    )
  for name in names:
    choose("split", name, dataset.splits)
  if names != ["train"]:
    for model in trained:
      _warn_of_other_training_data(model, dataset, split)
  parts = [dataset.split(name) for name in names]
  arrays = [part.arrays() for part in parts]
  images = np.concatenate([a["image"] for a in arrays])
  targets = np.concatenate([a["target"] for a in arrays])
  total: np.ndarray = np.zeros((len(images), len(first.class_names)))
  with tqdm(
    total=len(images) * len(trained),
    desc=f"predicting {split}",
    unit=" images",
    leave=False,
    disable=None,
  ) as bar:
    for model in trained:
      total += model.probabilities(images, tta, lambda n: bar.update(n))
  return Predictions(
    split=split,
    class_names=first.class_names,
    images=images,
    targets=targets,
    rows=np.concatenate([a["row"] for a in arrays]),
    splits=[
      name
      for name, part in zip(names, parts, strict=True)
      for _ in range(len(part))
    ],
    probabilities=(total / len(trained)).astype(np.float32),
    leaks=_leaks(dataset, names),
    file_names=dataset.file_names,
  )


def open_dataset(
  trained: TrainedModel,
  manual_dir: urls.PathLike | None,
  data_dir: urls.PathLike | None,
) -> Dataset:
  """Opens the dataset that a model was trained on.

  Args:
    trained: the model.
    manual_dir: folder of the release; None for the run's last one.
    data_dir: folder of prepared datasets; None for the run's last one.

  Raises:
    UserError: it is not there, or has other classes now.
  """
  options = trained.config.dataset.to_dict() | _last_places(trained)
  if manual_dir is not None:
    options["manual_dir"] = manual_dir
  if data_dir is not None:
    options["data_dir"] = data_dir
  dataset = registry.load(options.pop("name"), **options)
  if dataset.class_names != trained.class_names:
    raise UserError(
      f"dataset {dataset.name} has the classes"
      f" {', '.join(dataset.class_names)}, but {trained.workdir} was trained on"
      f" {', '.join(trained.class_names)}: give the same release"
    )
  return dataset


def _last_places(trained: TrainedModel) -> dict[str, str]:
  """Returns where a run's data were when it was last trained.

  The best checkpoint may be older than the last resumption, which may have read
  the data from elsewhere.
  """
  try:
    options = read_config(trained.workdir).dataset
  except (OSError, ValueError):  # A released model, or a run without the file.
    return {}
  return {name: options[name] for name in ("manual_dir", "data_dir")}


def _check_ensemble(first: TrainedModel, other: TrainedModel) -> None:
  """Raises UserError if two models cannot be in one ensemble."""
  if other.class_names != first.class_names:
    raise UserError(
      f"{other.workdir} has the classes {', '.join(other.class_names)}, but"
      f" {first.workdir} has {', '.join(first.class_names)}: the models of an"
      " ensemble must have the same classes in the same order"
    )
  if other.image_shape != first.image_shape:
    its, ours = (
      " x ".join(map(str, model.image_shape)) for model in (other, first)
    )
    raise UserError(
      f"{other.workdir} was trained on images of {its}, but {first.workdir} on"
      f" {ours}: the models of an ensemble must be for the same images"
    )


def _warn_of_other_training_data(
  trained: TrainedModel, dataset: Dataset, split: str
) -> None:
  """Warns if a model was trained on other data than the training split now.

  Then images of the split may have been among them: a holdout is drawn again
  when files are added, and the models of an ensemble may have other folds.
  """
  before = trained.info.get("data", {})
  training = {
    field: {"train": before[field]["train"]}
    for field in ("num_examples", "fingerprints")
    if "train" in before.get(field, {})
  }
  if changed := differences(training, dataset.description()):
    logging.warning(
      "%s was trained on other data than the training split has now (%s): if"
      " images of split %s were among them, its scores are too high",
      trained.workdir,
      "; ".join(changed),
      split,
    )


def _leaks(dataset: Dataset, names: Sequence[str]) -> Bool[np.ndarray, " n"]:
  """Returns which images of the splits are also in the training split."""
  held = [d for name in names for d in digests(dataset.split(name))]
  if "train" not in dataset.splits:
    return np.zeros(len(held), bool)
  seen = set(digests(dataset.split("train")))
  return np.array([digest in seen for digest in held], bool)
