"""The check that a model can learn at all: a few images, by heart.

Lewis et al. do it before any other run. A model that cannot get a few dozen
images all right has a fault in its data, its loss or its learning rate.
"""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fer_jax.data.splits import Dataset
from fer_jax.errors import require
from fer_jax.models import registry

ANNOUNCEMENT = (
  "overfit: validation is on the training images; no augmentation, dropout,"
  " smoothing, class weights, weight decay, averaging or early stopping"
)
_SPLITS = ("train", "validation")


def plain(config: ConfigDict) -> ConfigDict:
  """A configuration without what stands in the way of learning by heart.

  Off are augmentation, dropout, label smoothing, class weights, weight decay,
  the moving average, accumulation and early stopping; the best epoch is that
  of the highest accuracy, and a batch has no more images than there are.

  Args:
    config: with `overfit`, the number of images.
  """
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for name, value in config.augment.items():
      if name != "fill":  # a word, of no use when nothing is moved
        config.augment[name] = type(value)(0)
    if "dropout" in registry.options_of(config.model.name):
      config.model.dropout = 0.0
    config.loss.label_smoothing = 0.0
    config.loss.class_weights = "none"
    config.optimizer.weight_decay = 0.0
    config.optimizer.accumulate_steps = 1
    config.ema_decay = 0.0
    config.early_stopping.patience = 0
    config.best_metric = "validation_accuracy"
    config.batch_size = min(config.batch_size, config.overfit)
  return config.lock()


def subset(dataset: Dataset, num_images: int, seed: int) -> Dataset:
  """A data set of a few training images, which are its validation split too.

  Args:
    dataset: any.
    num_images: how many.
    seed: draws them.

  Raises:
    UserError: there are not so many.
  """
  train = dataset.split("train")
  must = f"be from 0 (off) to {len(train)}, the rows of the training split"
  require(1 <= num_images <= len(train), "overfit", num_images, must)
  order = np.random.default_rng(seed).permutation(len(train))
  places = np.sort(order[:num_images])
  splits = {name: train.pick(places, name=name) for name in _SPLITS}
  return dataset.replace(splits=splits)


def verdict(summary: dict[str, Any]) -> str:
  """Says whether the check was passed.

  Args:
    summary: of a run, with `overfit`.
  """
  num, accuracy = summary["overfit"], summary["validation_accuracy"]
  if round(accuracy * num) == num:
    return (
      f"overfit: pass, all of {num} images right after epoch"
      f" {summary['best_epoch']}"
    )
  return (
    f"overfit: fail, {accuracy:.2%} of {num} images right at best: look at the"
    " images and labels, give more epochs or another learning rate"
  )
