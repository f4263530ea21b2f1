"""Overfitting a small subset: what is disabled, and the verdict."""

import numpy as np
import pytest
import tiny_run

from fer_jax.errors import UserError
from fer_jax.training import overfit_check, train_loop
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.logging import curves

pytestmark = pytest.mark.usefixtures("tiny_model")


def test_nothing_hinders_and_validation_is_training(prepared):
  config = tiny_run.config(
    prepared,
    overfit=20,
    augment__shift=0.1,
    augment__flip=True,
    augment__mixup=0.2,
    augment__crop_padding=2,
    loss__label_smoothing=0.1,
    loss__class_weights="balanced",
    optimizer__weight_decay=0.1,
    ema_decay=0.9,
    early_stopping__patience=1,
  )
  parts = create_experiment(config)
  assert not any(
    value for name, value in parts.config.augment.items() if name != "fill"
  )
  assert parts.config.batch_size == 20
  assert not parts.config.loss.label_smoothing
  assert parts.config.best_metric == "validation_accuracy"
  assert config.augment.shift == 0.1  # the user's own stays
  assert set(parts.dataset.splits) == {"train", "validation"}
  train, held = (
    parts.dataset.splits[s].arrays() for s in ("train", "validation")
  )
  assert len(train["row"]) == len(set(train["row"])) == 20
  for name in train:
    np.testing.assert_array_equal(train[name], held[name])
  other = create_experiment(tiny_run.config(prepared, overfit=20, seed=1))
  rows = other.dataset.splits["train"].arrays()["row"]
  assert set(rows) != set(train["row"])


def test_dropout_is_off(prepared):
  config = tiny_run.config(prepared, overfit=8, model__name="mobilenet_v2")
  assert create_experiment(config).model.dropout == 0.0


def test_a_model_that_learns_passes(tmp_path, prepared, monkeypatch):
  monkeypatch.setattr(curves, "draw", lambda *_: None)  # half of the time
  config = tiny_run.config(
    prepared,
    overfit=16,
    num_epochs=40,
    optimizer__learning_rate=1e-2,
  )
  result = train_loop.train_and_evaluate(config, tmp_path)
  assert result.validation.num_examples == result.overfit == 16
  assert "overfit check passed: all 16 images correct" in str(result)
  again = train_loop.train_and_evaluate(config, tmp_path)
  assert again.overfit == 16


def test_a_model_that_does_not_learn_fails():
  line = overfit_check.verdict(64, accuracy=63 / 64, best_epoch=3)
  assert "overfit check failed: at best 98.44% of 64 images correct" in line


@pytest.mark.parametrize("number", [-1, tiny_run.NUM_TRAIN + 1])
def test_a_wrong_number_is_said(prepared, number):
  with pytest.raises(UserError, match=f"overfit={number}"):
    create_experiment(tiny_run.config(prepared, overfit=number))
