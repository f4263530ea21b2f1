"""The check that a model can overfit a small subset of the training images.

Lewis does it before any other run. A model that cannot classify a few
dozen training images correctly has a fault in its data, its loss or its
learning rate.
"""

import numpy as np
from ml_collections import ConfigDict

from fer_jax.data.splits import Dataset
from fer_jax.errors import require
from fer_jax.models import registry

ANNOUNCEMENT = (
  "overfit check: validates on the training images; no augmentation, dropout,"
  " stochastic depth, label smoothing, class weights, weight decay, EMA or"
  " early stopping"
)
_SPLITS = ("train", "validation")


def without_regularization(config: ConfigDict) -> ConfigDict:
  """Returns a configuration without anything that hinders overfitting.

  Augmentation, dropout, stochastic depth, label smoothing, class weights,
  weight decay, the moving average, gradient accumulation and early stopping are
  off. The best epoch is the one with the highest accuracy. A batch has at most
  as many images as the subset.

  Args:
    config: with `overfit`, the number of images.
  """
  config = config.copy_and_resolve_references()
  with config.unlocked():
    for name, value in config.augment.items():
      if name != "fill":  # a string, unused if images are not moved
        config.augment[name] = type(value)(0)
    for option in registry.options_of(config.model.name):
      if option in ("dropout", "stochastic_depth"):
        config.model[option] = 0.0
    config.loss.label_smoothing = 0.0
    config.loss.class_weights = "none"
    config.loss.teacher = ""
    config.optimizer.weight_decay = 0.0
    config.optimizer.accumulate_steps = 1
    config.ema_decay = 0.0
    config.early_stopping.patience = 0
    config.best_metric = "validation_accuracy"
    config.batch_size = min(config.batch_size, config.overfit)
  return config.lock()


def subset(dataset: Dataset, num_images: int, seed: int) -> Dataset:
  """Returns a few training images, as training and as validation split.

  Args:
    dataset: has a training split.
    num_images: size of the subset.
    seed: selects the images.

  Raises:
    UserError: there are fewer training images.
  """
  train = dataset.split("train")
  must = f"be from 0 (off) to {len(train)}, the training images"
  require(1 <= num_images <= len(train), "overfit", num_images, must)
  order = np.random.default_rng(seed).permutation(len(train))
  places = np.sort(order[:num_images])
  splits = {name: train.pick(places, name=name) for name in _SPLITS}
  return dataset.replace(splits=splits)


def verdict(num_images: int, accuracy: float, best_epoch: int) -> str:
  """Returns one line that says whether the check passed.

  Args:
    num_images: size of the subset.
    accuracy: the best epoch's, on the subset.
    best_epoch: number of that epoch.
  """
  if round(accuracy * num_images) == num_images:
    return (
      f"overfit check passed: all {num_images} images correct after epoch"
      f" {best_epoch}"
    )
  return (
    f"overfit check failed: at best {accuracy:.2%} of {num_images} images"
    " correct; look at the images and labels, or use more epochs or another"
    " learning rate"
  )
