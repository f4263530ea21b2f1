"""The learning rate at points computed by hand, and reduce on plateau."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fer_jax.configs import default
from fer_jax.errors import UserError
from fer_jax.training.optim import schedules


def _config(**fields):
  config = default.get_config().schedule
  config.update(fields)
  return config


def _rates(counts, steps_per_epoch=10, num_epochs=4, every=1, **fields):
  schedule = schedules.create(
    _config(**fields), 0.2, steps_per_epoch, num_epochs, every
  )
  return [float(schedule(jnp.int32(count))) for count in counts]


@pytest.mark.parametrize("name", ["fixed", "plateau"])
def test_fixed(name):
  np.testing.assert_allclose(_rates([0, 7, 40], name=name), 0.2)


def test_linear():
  rates = _rates([0, 10, 39, 40, 50], name="linear", end_factor=0.2)
  np.testing.assert_allclose(rates, [0.2, 0.16, 0.044, 0.04, 0.04], rtol=1e-6)


def test_cosine():
  rates = _rates([0, 10, 20, 40, 50], name="cosine", end_factor=0.1)
  quarter = 0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2
  expected = np.array([1, quarter, 0.55, 0.1, 0.1]) * 0.2
  np.testing.assert_allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize(
  ("name", "reference"),
  [
    ("cosine", optax.warmup_cosine_decay_schedule(0.0, 0.2, 10, 40, 0.02)),
    (
      "linear",
      optax.join_schedules(
        [
          optax.linear_schedule(0.0, 0.2, 10),
          optax.linear_schedule(0.2, 0.02, 30),
        ],
        [10],
      ),
    ),
  ],
)
def test_agrees_with_optax(name, reference):
  counts = range(45)
  rates = _rates(counts, name=name, end_factor=0.1, warmup_epochs=1.0)
  expected = [float(reference(count)) for count in counts]
  np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-8)


def test_step_changes_at_the_first_update_of_its_epoch():
  rates = _rates([9, 10, 24, 25, 39], name="step", step_epochs=(1.0, 2.5))
  np.testing.assert_allclose(rates, [0.2, 0.02, 0.02, 2e-3, 2e-3], rtol=1e-6)


def test_every_step_epoch_of_a_long_run_is_exact():
  """A boundary must not fall an update late by rounding."""
  config = _config(name="step", step_factor=0.5)
  for epoch in range(1, 200, 7):
    config.step_epochs = (float(epoch),)
    schedule = schedules.create(config, 1.0, 897, 200)
    assert schedule(epoch * 897 - 1) == 1.0
    assert schedule(epoch * 897) == 0.5


def test_step_epochs_count_warmup_as_training():
  rates = _rates(
    [5, 19, 20], name="step", step_epochs=(2.0,), warmup_epochs=1.0
  )
  np.testing.assert_allclose(rates, [0.1, 0.2, 0.02], rtol=1e-6)


def test_fractional_warmup():
  """A quarter of an epoch of 10 is 2.5 updates."""
  rates = _rates([0, 1, 2, 3, 39], warmup_epochs=0.25)
  np.testing.assert_allclose(rates, [0, 0.08, 0.16, 0.2, 0.2], rtol=1e-6)


def test_accumulation_counts_updates():
  """Two batches an update: 5 updates an epoch, 20 in all."""
  rates = _rates([0, 2, 5, 10, 20], every=2, name="linear", warmup_epochs=1.0)
  expected = [0, 0.08, 0.2, 0.2 * 2 / 3, 0]
  np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-8)
  rates = _rates([7, 8], every=4, name="step", step_epochs=(3.0,))
  np.testing.assert_allclose(rates, [0.2, 0.02], rtol=1e-6)  # 7.5 updates


def test_schedule_is_a_float32_under_jit_and_maps_over_counts():
  schedule = schedules.create(
    _config(name="cosine", warmup_epochs=1.0), 0.2, 10, 4
  )
  counts = jnp.arange(45)
  rates = jax.jit(lambda schedule, counts: schedule(counts))(schedule, counts)
  assert rates.dtype == jnp.float32
  single = [schedule(count) for count in counts]
  np.testing.assert_allclose(rates, single, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("name", "cosin"),
    ("warmup_epochs", -1.0),
    ("warmup_epochs", 4.0),
    ("warmup_epochs", float("nan")),
    ("end_factor", -0.1),
    ("end_factor", 1.5),
    ("step_epochs", (3.0, -1.0)),
    ("step_epochs", (3.0, None)),
    ("step_factor", 0.0),
    ("plateau_patience", 0),
    ("plateau_min_delta", -1e-4),
  ],
)
def test_bad_fields_are_named_as_typed(field, value):
  with pytest.raises(UserError, match=f"schedule.{field}") as e:
    schedules.create(_config(**{field: value}), 0.2, 10, 4)
  assert "\n" not in str(e.value)


@pytest.mark.parametrize(
  ("arguments", "field"),
  [
    ((0.0, 10, 4), "optimizer.learning_rate"),
    ((float("nan"), 10, 4), "optimizer.learning_rate"),
    ((0.2, 10, 0), "num_epochs"),
    ((0.2, 10, 4, 0), "optimizer.accumulate_steps"),
    ((0.2, 10, 4, 41), "optimizer.accumulate_steps"),
  ],
)
def test_bad_arguments_are_named_as_typed(arguments, field):
  with pytest.raises(UserError, match=f"{field}="):
    schedules.create(_config(), *arguments)


def test_an_epoch_without_steps_is_refused():
  with pytest.raises(ValueError, match="steps_per_epoch is 0"):
    schedules.create(_config(), 0.2, 0, 4)


def test_plateau_sequence():
  plateau = schedules.Plateau(factor=0.1, patience=2, min_delta=0.01)
  sequence = [
    (2.0, 1.0),  # the first is the best
    (1.5, 1.0),
    (1.495, 1.0),  # better, but by less than min_delta: bad 1
    (1.6, 0.1),  # bad 2: reduced, and the count is reset
    (1.7, 0.1),  # bad 1
    (1.4, 0.1),  # better
    (float("nan"), 0.1),  # bad 1
    (1.395, 0.01),  # bad 2
    (1.3, 0.01),
  ]
  for loss, factor in sequence:
    assert plateau.update(loss) == pytest.approx(factor)
    assert plateau.lr_factor == pytest.approx(factor)


def test_plateau_counts_epochs_that_were_not_evaluated():
  plateau = schedules.Plateau(factor=0.1, patience=4, min_delta=0.0)
  assert [plateau.update(1.0, 2) for _ in range(4)] == [1.0, 1.0, 0.1, 0.1]


def test_plateau_of_nan_only_still_reduces():
  plateau = schedules.Plateau(factor=0.5, patience=1, min_delta=0.0)
  assert [plateau.update(float("nan")) for _ in range(2)] == [0.5, 0.25]
  assert json.loads(json.dumps(plateau.state()))["best"] is None


def test_plateau_resumes_exactly():
  losses = np.random.default_rng(0).normal(size=30).tolist()
  whole = schedules.Plateau(0.3, 2, 1e-4)
  expected = [whole.update(loss) for loss in losses]
  for cut in range(30):
    first = schedules.Plateau(0.3, 2, 1e-4)
    factors = [first.update(loss) for loss in losses[:cut]]
    second = schedules.Plateau(0.3, 2, 1e-4)
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    factors += [second.update(loss) for loss in losses[cut:]]
    assert factors == expected
