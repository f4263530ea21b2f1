"""Runs whose steps are equal share a program and differ in its arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from tiny_run import NUM_TRAIN

from fer_jax.data import normalization
from fer_jax.training import compiled_steps
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.metrics import Metrics

pytestmark = pytest.mark.usefixtures("tiny_model")


def after_a_step(parts, train):
  state = parts.init_state()
  rows = {"index": np.arange(8, dtype=np.int32)}
  state, _ = train(state, Metrics.zeros(), parts.train_data, rows, parts.inputs)
  return jax.device_get(state)


@pytest.mark.parametrize("name", ["sgd", "adafactor"])
def test_runs_of_other_rates_seeds_and_lengths_share_a_step(prepared, name):
  fields = {"optimizer__name": name, "augment__shift": 0.1}
  first = tiny_run.config(prepared, **fields)
  other = tiny_run.config(
    prepared,
    **fields,
    optimizer__learning_rate=0.3,
    optimizer__weight_decay=0.2,
    schedule__name="cosine",
    schedule__warmup_epochs=0.0,
    num_epochs=7,
    seed=5,
  )
  states = []
  for config in (first, other):
    parts = create_experiment(config)
    step = parts.train_step(epoch=0)
    shared = compiled_steps.make_train_step(parts.parallel, step)
    state = after_a_step(parts, shared)
    alone = after_a_step(parts, jax.jit(step.__call__))
    for one, two in zip(
      jax.tree.leaves(state), jax.tree.leaves(alone), strict=True
    ):
      np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    states.append((step, state))
  assert states[0][0] == states[1][0]
  assert not np.allclose(
    states[0][1].params["fc"]["kernel"], states[1][1].params["fc"]["kernel"]
  )


@pytest.mark.parametrize(
  "fields",
  [
    {"optimizer__name": "sgd"},
    {"optimizer__b1": 0.8},
    {"augment__flip": True},
    {"loss__label_smoothing": 0.1},
    {"ema_decay": 0.9},
    {"dtype": "bfloat16"},
    {"freeze__patterns": "conv1"},
    {"optimizer__lr_multipliers": "fc:10"},
  ],
  ids=str,
)
def test_what_is_compiled_in_is_not_shared(prepared, fields):
  def step(**fields):
    config = tiny_run.config(prepared, **fields)
    return create_experiment(config).train_step(epoch=0)

  assert step() == step()
  assert step() != step(**fields)


def test_every_step_augments_differently(prepared):
  config = tiny_run.config(prepared, augment__flip=True)
  parts = create_experiment(config)
  compute = jax.jit(parts.train_step(epoch=0).gradients)
  rows = {"index": np.arange(32, dtype=np.int32)}
  losses = []
  for step in (0, 0, 1):
    state = parts.init_state().replace(step=jnp.asarray(step))
    _, _, metrics = compute(
      state, Metrics.zeros(), parts.train_data, rows, parts.inputs
    )
    losses.append(float(metrics.loss))
  assert losses[0] == losses[1] != losses[2]


def test_rare_classes_weigh_more(prepared):
  config = tiny_run.config(prepared, loss__class_weights="balanced")
  parts = create_experiment(config)
  split = parts.dataset.split("train").arrays()
  state, rows = parts.init_state(), np.arange(32, dtype=np.int32)
  gradients, _, _ = jax.jit(parts.train_step(epoch=0).gradients)(
    state, Metrics.zeros(), parts.train_data, {"index": rows}, parts.inputs
  )
  logits, _ = parts.model.apply(
    state.variables(),
    normalization.prepare(jnp.asarray(split["image"][rows]), **config.input),
    train=True,
    mutable=["batch_stats"],
  )
  weights = NUM_TRAIN / (7 * np.bincount(split["target"], minlength=7))
  assert weights.max() > 1.2
  weights = weights[split["target"][rows]]
  errors = jax.nn.softmax(logits) - np.eye(7)[split["target"][rows]]
  np.testing.assert_allclose(
    gradients["fc"]["bias"],
    (weights[:, None] * errors).sum(axis=0) / weights.sum(),
    atol=1e-4,
  )


def test_parameters_and_batch_statistics_are_averaged_alike(prepared):
  """As TensorFlow's ExponentialMovingAverage, with `num_updates`."""
  config = tiny_run.config(prepared, ema_decay=0.3)
  parts = create_experiment(config)
  step = jax.jit(parts.train_step(epoch=0).__call__)
  state = parts.init_state()
  expected = jax.device_get(state.variables())
  rows = {"index": np.arange(8, dtype=np.int32)}
  for t in range(4):
    state, _ = step(
      state, Metrics.zeros(), parts.train_data, rows, parts.inputs
    )
    decay = min(0.3, (1 + t) / (10 + t))
    expected = jax.tree.map(
      lambda old, new, decay=decay: decay * old + (1 - decay) * new,
      expected,
      jax.device_get(state.variables()),
    )
  assert state.eval_variables() is state.ema
  assert expected["batch_stats"]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    jax.device_get(state.ema),
    expected,
  )
  assert not np.allclose(
    state.ema["batch_stats"]["bn1"]["var"], state.batch_stats["bn1"]["var"]
  )
