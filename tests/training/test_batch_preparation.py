"""What a training batch is before the model sees it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from fer_jax.data import normalization
from fer_jax.training.batch_preparation import prepare_training_batch

LABELS = np.arange(32) % 7
KEY = jax.random.key(0)


@pytest.fixture
def images():
  rng = np.random.default_rng(0)
  return rng.integers(256, size=(32, 24, 24, 1), dtype=np.uint8)


def prepare(images, tmp_path, **fields):
  config = tiny_run.config(tmp_path, **fields)
  batch = prepare_training_batch(
    KEY, images, jnp.asarray(LABELS), config, 7, None
  )
  assert batch.loss_targets is batch.targets
  return np.asarray(batch.images), np.asarray(batch.targets)


def test_pixels_are_normalized(images, tmp_path):
  plain, _ = prepare(images, tmp_path, input__normalization="unit")
  np.testing.assert_allclose(plain, images / 255, atol=1e-6)
  fields = {"input__mean": (0.4,), "input__std": (0.2,)}
  found, _ = prepare(
    images, tmp_path, input__normalization="mean_std", **fields
  )
  np.testing.assert_allclose(found, (images / 255 - 0.4) / 0.2, atol=1e-5)


def test_images_are_augmented(images, tmp_path):
  fields = {"input__normalization": "unit"}
  found, _ = prepare(images, tmp_path, augment__flip=True, **fields)
  as_they_are = normalization.to_float(images, 1)
  mirrored = as_they_are[:, :, ::-1]
  flipped = np.isclose(found, mirrored, atol=1e-6).all((1, 2, 3))
  same = np.isclose(found, as_they_are, atol=1e-6).all((1, 2, 3))
  assert (flipped ^ same).all() and 8 < flipped.sum() < 24


def test_labels_are_smoothed(images, tmp_path):
  _, targets = prepare(images, tmp_path, loss__label_smoothing=0.1)
  expected = 0.9 * np.eye(7)[LABELS] + 0.1 / 7
  np.testing.assert_allclose(targets, expected, atol=1e-6)


@pytest.mark.parametrize("field", ["augment__mixup", "augment__cutmix"])
def test_images_and_targets_are_mixed(images, tmp_path, field):
  plain, _ = prepare(images, tmp_path)
  found, targets = prepare(images, tmp_path, **{field: 1.0})
  np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-5)
  mixed = (targets > 0).sum(axis=1) == 2
  assert mixed.sum() > 8
  changed = ~np.isclose(found, plain, atol=1e-6).all((1, 2, 3))
  assert changed[mixed].all()


@pytest.mark.parametrize("field", ["augment__mixup", "augment__cutmix"])
def test_mixed_images_keep_the_weights_of_their_classes(
  images, tmp_path, field
):
  fields = {field: 1.0, "loss__label_smoothing": 0.1}
  _, mixed = prepare(images, tmp_path, **fields)
  weights = jnp.where(jnp.arange(7) == 3, 5.0, 0.5)
  config = tiny_run.config(tmp_path, **fields)
  batch = prepare_training_batch(
    KEY, images, jnp.asarray(LABELS), config, 7, None, tuple(weights)
  )
  np.testing.assert_allclose(batch.targets, mixed, atol=1e-6)
  np.testing.assert_allclose(batch.loss_targets.sum(axis=1), 1, atol=1e-5)
  found = (batch.weights[:, None] * batch.loss_targets).sum(axis=0)
  plain = 0.9 * np.eye(7)[LABELS] + 0.1 / 7
  expected = (weights[LABELS][:, None] * plain).sum(axis=0)
  np.testing.assert_allclose(found, expected, rtol=1e-4)
