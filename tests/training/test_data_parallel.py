"""One device and four give the same training."""

import jax
import numpy as np
import pytest
import tiny_run

from fer_jax.data import pipeline
from fer_jax.errors import UserError
from fer_jax.training import compiled_steps, data_parallel
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.metrics import Metrics
from fer_jax.training.split_evaluation import EvalStep, make_eval_step

pytestmark = pytest.mark.usefixtures("tiny_model")

NUM_STEPS = 3


def trained(config, stacked=False):
  """State and metrics after some steps, and metrics of the validation set."""
  parts = create_experiment(config)
  parallel = parts.parallel
  state = parts.place(parts.init_state(), epoch=0)
  split = parts.dataset.split("train")
  data, inputs = parts.train_data, parts.device_inputs
  metrics = parallel.replicate(Metrics.zeros())
  batches = list(
    next(it)
    for it in [
      pipeline.training_batches(split, parts.batch_order, config.data_loader)
    ]
    for _ in range(NUM_STEPS)
  )
  step = parts.train_step(epoch=0)
  if stacked:
    train = compiled_steps.make_train_steps(parallel, step)
    batch = jax.tree.map(lambda *x: np.stack(x), *batches)
    batch = parallel.shard(batch, stacked=True)
    state, metrics = train(state, metrics, data, batch, inputs)
  else:
    train = compiled_steps.make_train_step(parallel, step)
    for batch in batches:
      state, metrics = train(
        state, metrics, data, parallel.shard(batch), inputs
      )
  evaluate = make_eval_step(
    parallel, EvalStep(config, parts.model, 7, parallel.axis_name)
  )
  validation = parts.dataset.split("validation")
  held = parts.device_data(validation)
  seen = parallel.replicate(Metrics.zeros())
  for batch in pipeline.evaluation_batches(validation, 32, config.data_loader):
    seen = evaluate(state.eval_variables(), seen, held, parallel.shard(batch))
  return tuple(map(parallel.fetch, (state, metrics, seen)))


def options(mode, **fields):
  return {
    "parallel": mode,
    "augment__shift": 0.1,
    "augment__flip": True,
    "augment__mixup": 0.2,
    "optimizer__name": "sgd",
    "optimizer__learning_rate": 0.05,
    "loss__class_weights": "balanced",
    "ema_decay": 0.9,
    **fields,
  }


def assert_changed_alike(start, one, other):
  """What training did to an array is the same, but for rounding.

  Element by element it is not: where rounding turns a ReLU on or off in one
  of the two, a few gradients differ by more.
  """
  change = np.linalg.norm(other - start)
  assert np.linalg.norm(one - other) <= 5e-3 * change + 1e-6


@pytest.fixture(scope="module")
def one_device(prepared):
  with pytest.MonkeyPatch.context() as monkeypatch:
    tiny_run.register(monkeypatch)
    return trained(tiny_run.config(prepared, **options("jit")))


@pytest.mark.parametrize(
  ("mode", "feed", "stacked"),
  [
    ("pmap", "in_memory", False),
    ("pmap", "streaming", True),
    ("shard_map", "in_memory", True),
    ("shard_map", "streaming", False),
  ],
)
def test_four_devices_equal_one(prepared, one_device, mode, feed, stacked):
  assert jax.device_count() == 4
  config = tiny_run.config(prepared, **options(mode, data_loader=feed))
  state, metrics, seen = trained(config, stacked)
  expected_state, expected_metrics, expected_seen = one_device
  start = jax.device_get(create_experiment(config).init_state())
  jax.tree.map(assert_changed_alike, start, state, expected_state)
  assert state.step == expected_state.step == NUM_STEPS
  assert metrics.count == expected_metrics.count == NUM_STEPS * 32
  np.testing.assert_allclose(metrics.loss, expected_metrics.loss, rtol=1e-5)
  assert seen.count == expected_seen.count == tiny_run.NUM_VALIDATION
  np.testing.assert_allclose(seen.loss, expected_seen.loss, rtol=1e-3)


def test_batch_statistics_are_of_the_global_batch(prepared, one_device):
  """With statistics of each device's share alone, this would differ."""
  config = tiny_run.config(prepared, **options("pmap"))
  state, _, _ = trained(config)
  expected = one_device[0].batch_stats["bn1"]["var"]
  np.testing.assert_allclose(
    state.batch_stats["bn1"]["var"], expected, rtol=1e-5
  )
  assert np.ptp(expected) > 0


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_four_devices_equal_one_where_layers_are_frozen(prepared, mode):
  fields = {"freeze__patterns": "conv1", "data_loader": "in_memory"}
  config = tiny_run.config(prepared, **options("jit", **fields))
  expected, _, _ = trained(config)
  start = jax.device_get(create_experiment(config).init_state())
  config = tiny_run.config(prepared, **options(mode, **fields))
  state, _, _ = trained(config)
  jax.tree.map(assert_changed_alike, start, state, expected)
  for tree in (state.params, state.ema["params"]):
    for layer in ("conv1", "bn1"):
      jax.tree.map(
        np.testing.assert_array_equal, tree[layer], start.params[layer]
      )


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_four_devices_equal_one_with_dropout(prepared, mode):
  fields = {
    "model__name": "leaky_cnn",
    "model__dropout": 0.5,
    "optimizer__learning_rate": 0.005,
  }
  config = tiny_run.config(prepared, **options("jit", **fields))
  expected, expected_metrics, _ = trained(config)
  start = jax.device_get(create_experiment(config).init_state())
  config = tiny_run.config(prepared, **options(mode, **fields))
  state, metrics, _ = trained(config)
  jax.tree.map(assert_changed_alike, start, state, expected)
  np.testing.assert_allclose(metrics.loss, expected_metrics.loss, rtol=1e-5)
  without = {**fields, "model__dropout": 0.0}
  _, metrics, _ = trained(
    tiny_run.config(prepared, **options("jit", **without))
  )
  assert abs(metrics.loss / expected_metrics.loss - 1) > 1e-3


def test_auto_is_pmap_over_several_devices():
  parallel = data_parallel.DataParallel("auto")
  assert (parallel.mode, parallel.num_devices) == ("pmap", 4)


@pytest.mark.parametrize("mode", ["jit", "pmap", "shard_map"])
def test_what_is_replicated_can_be_fetched(mode):
  parallel = data_parallel.DataParallel(mode)
  tree = {"a": np.arange(6.0).reshape(2, 3), "b": np.int32(7)}
  fetched = parallel.fetch(parallel.replicate(tree))
  jax.tree.map(np.testing.assert_array_equal, fetched, tree)
  fetched["a"][0, 0] = 5.0  # A copy: donated buffers are never looked at.


def test_a_batch_that_does_not_divide_is_refused(prepared):
  config = tiny_run.config(prepared, parallel="pmap", batch_size=30)
  with pytest.raises(UserError, match="batch_size=30 must.*use batch_size=28"):
    create_experiment(config)


def test_unknown_mode_lists_the_choices():
  with pytest.raises(UserError, match="shard_map"):
    data_parallel.DataParallel("threads")
