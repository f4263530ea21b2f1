"""The loop's state survives a checkpoint, also one of version 0.1."""

import json

import numpy as np
import pytest

from fer_jax.configs import default
from fer_jax.training.loop_state import LoopState, crosses_multiple
from fer_jax.training.metrics import Metrics


@pytest.fixture
def config():
  config = default.get_config()
  config.early_stopping.patience = 3
  config.schedule.name = "plateau"
  return config.lock()


def test_a_state_survives_json_to_the_last_bit(config):
  state = LoopState.create(config)
  state.step, state.epoch, state.seconds = 37, 2, 1 / 3
  loss = np.float32(1) / np.float32(3)
  state.metrics = Metrics(loss, np.int32(5), np.int32(2**31 - 1))
  state.early_stopping.update(1, 0.7)
  state.early_stopping.update(2, 0.8)
  assert state.plateau
  state.plateau.update(0.7)
  fields = json.loads(json.dumps(state.to_json()))
  restored = LoopState.restore(config, {"loop_state": fields})
  assert restored.to_json() == state.to_json()
  assert restored.metrics.loss == loss
  assert restored.metrics.loss.dtype == np.float32


def test_a_checkpoint_of_a_development_version_is_read(config):
  position = {
    "step": 20,
    "epoch": 1,
    "sums": [1433.9862060546875, 88, 640],
    "seconds": 1.5,
    "stopping": {
      "best": 1.25,
      "best_epoch": 1,
      "mark": 1.5,
      "num_bad_epochs": 2,
    },
    "plateau": {"best": 1.25, "num_bad_epochs": 1, "lr_factor": 0.1},
  }
  state = LoopState.restore(config, {"position": position})
  assert (state.step, state.epoch, state.seconds) == (20, 1, 1.5)
  assert state.metrics.loss == np.float32(1433.9862060546875)
  assert (state.metrics.correct, state.metrics.count) == (88, 640)
  assert state.early_stopping.state() == position["stopping"]
  assert state.plateau and state.plateau.state() == position["plateau"]


def test_a_run_ends_with_its_epochs_or_without_patience(config):
  state = LoopState.create(config)
  assert not state.is_finished(num_epochs=1)
  state.epoch = 1
  assert state.is_finished(num_epochs=1)
  state.epoch = 0
  for epoch in range(1, 5):
    state.early_stopping.update(epoch, float(epoch))
  assert state.is_finished(num_epochs=99)


@pytest.mark.parametrize(
  ("before", "after", "every", "expected"),
  [
    (0, 1, 1, True),
    (8, 10, 10, True),
    (10, 12, 10, False),
    (8, 21, 10, True),
    (0, 99, 0, False),
  ],
)
def test_multiples_are_crossed(before, after, every, expected):
  assert crosses_multiple(before, after, every) == expected
