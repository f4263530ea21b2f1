"""Steps as on a GPU compute what plain Flax and optax do, on this CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from fer_jax import models
from fer_jax.configs import default
from fer_jax.models import registry
from fer_jax.ops import convolution
from fer_jax.training import flat_params, train_loop
from fer_jax.training.metrics import Metrics
from fer_jax.training.optim import schedules
from fer_jax.training.runtime import host_evaluation
from fer_jax.training.train_state import RunInputs
from fer_jax.training.train_step import TrainStep

MODELS = (
  "leaky_cnn",
  "alexnet",
  "resnet18",
  "mobilenet_v2",
  "bi_resnet_ri",
  "resnet50",
  "cbam_resnet34",
  "resnet152",
)
SHAPE, BATCH = (32, 32, 1), 16


def one_step(name: str, accelerated: bool):
  """Returns the gradients of a step and the state after it, as trees."""
  config = default.get_config()
  config.model.name, config.dtype = name, "float32"
  config.input.image_size, config.input.channels = SHAPE[0], 1
  options = {"dropout": 0.0} if "dropout" in registry.options_of(name) else {}
  step = TrainStep(config, models.create(name, 7, **options), 7)
  schedule = schedules.create(config.schedule, 1e-3, 10, 1, 1)
  inputs = RunInputs(jax.random.key(0), schedule, jnp.float32(0))
  rng = np.random.default_rng(0)
  data = {
    "image": rng.integers(256, size=(BATCH, *SHAPE), dtype=np.uint8),
    "target": rng.integers(7, size=BATCH, dtype=np.int32),
  }
  batch = {"index": np.arange(BATCH, dtype=np.int32)}
  path = convolution.tracing_for("gpu")
  with path if accelerated else convolution.use_xla():
    traced = jax.jit(lambda rng, inputs: step.init(rng, SHAPE, inputs)).trace(
      inputs.rng, inputs
    )
    state = step.flatten(host_evaluation.evaluate(traced, inputs.rng, inputs))
    args = state, Metrics.zeros(), data, batch, inputs
    gradients, stats, metrics = jax.jit(lambda *a: step.gradients(*a))(*args)
    new = jax.jit(lambda *a: step.update(*a))(state, gradients, stats, inputs)
  gradients, new = jax.device_get((gradients, new))
  return flat_params.to_tree(gradients), new.unpacked(), metrics


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_step_equals_that_of_plain_flax(name):
  """Up to rounding, which switches single ReLUs of a deep network."""
  gradients, state, metrics = one_step(name, accelerated=True)
  expected, expected_state, expected_metrics = one_step(name, accelerated=False)
  np.testing.assert_allclose(metrics.loss, expected_metrics.loss, rtol=1e-5)
  for (path, own), other in zip(
    jax.tree.leaves_with_path(gradients), jax.tree.leaves(expected), strict=True
  ):
    difference = np.linalg.norm(own - other)
    tolerance = 2e-2 * np.linalg.norm(other) + 1e-6
    assert difference <= tolerance, jax.tree_util.keystr(path)
  norms = [
    np.sqrt(sum((x**2).sum() for x in jax.tree.leaves(tree)))
    for tree in (gradients, expected)
  ]
  assert norms[0] == pytest.approx(norms[1], rel=1e-3)
  for own, other in zip(
    jax.tree.leaves(state.batch_stats),
    jax.tree.leaves(expected_state.batch_stats),
    strict=True,
  ):
    np.testing.assert_allclose(own, other, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_model")
def test_bfloat16_learns_as_fast_as_plain_flax(tmp_path, prepared):
  config = tiny_run.config(prepared, dtype="bfloat16", num_epochs=4)
  with convolution.tracing_for("gpu"):
    own = train_loop.train_and_evaluate(config, tmp_path / "own")
  with convolution.use_xla():
    plain = train_loop.train_and_evaluate(config, tmp_path / "plain")
  losses = [
    [epoch["train_loss"] for epoch in run.epochs] for run in (own, plain)
  ]
  np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)
  assert losses[0][-1] < 0.3 * losses[0][0]
