"""Steps as on a GPU compute what plain Flax and optax do, on this CPU."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_run

from fer_jax import models
from fer_jax.configs import default
from fer_jax.models import registry
from fer_jax.ops import dispatch
from fer_jax.training import flat_params, packing, train_loop
from fer_jax.training.batch_preparation import (
  arrange_split,
  gather,
  prepare_training_batch,
)
from fer_jax.training.metrics import Metrics
from fer_jax.training.optim import schedules
from fer_jax.training.runtime import host_evaluation
from fer_jax.training.train_state import RunInputs, TrainState
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
SHAPE, BATCH, LEARNING_RATE = (48, 48, 1), 8, 1e-3


class Results(NamedTuple):
  """What a step computes, as trees on the host."""

  loss: np.ndarray
  gradients: Any
  state: TrainState

  def parts(self) -> dict[str, Any]:
    """Returns the trees that are proportional to the gradients or statistics.

    The parameters are not: Adam divides gradients by their size.
    """
    return {
      "loss": self.loss,
      "gradients": self.gradients,
      "batch_stats": self.state.batch_stats,
      "mu": optax.tree.get(self.state.opt_state, "mu"),
      "nu": optax.tree.get(self.state.opt_state, "nu"),
    }


def train(name: str, accelerated: bool, num_steps: int) -> list[Results]:
  """Trains on one batch, operation by operation.

  So nothing is fused, and the layers of a deep network share small programs,
  which takes much less time than to compile the step. Computes in float64 where
  that is enabled (`float64`).
  """
  config = default.get_config()
  config.model.name, config.dtype = name, "float32"
  config.input.image_size, config.input.channels = SHAPE[0], 1
  options = {"dropout": 0.0} if "dropout" in registry.options_of(name) else {}
  model = models.create(name, 7, dtype=jnp.float32, **options)
  step = TrainStep(config, model, 7)
  schedule = schedules.create(config.schedule, LEARNING_RATE, 10, 1, 1)
  inputs = RunInputs(jax.random.key(0), schedule, jnp.float32(0))
  rng = np.random.default_rng(0)
  arrays: dict[str, np.ndarray] = {
    "image": rng.integers(256, size=(BATCH, *SHAPE), dtype=np.uint8),
    "target": rng.integers(7, size=BATCH, dtype=np.int32),
  }
  batch = {"index": jnp.arange(BATCH, dtype=jnp.int32)}
  path = dispatch.tracing_for("gpu")
  with path if accelerated else dispatch.use_xla():
    data = arrange_split(arrays)
    traced = jax.jit(lambda rng, inputs: step.init(rng, SHAPE, inputs)).trace(
      inputs.rng, inputs
    )
    state = host_evaluation.evaluate(traced, inputs.rng, inputs)
    state = packing.pack(step, jax.tree.map(as_computed, state))
    results = []
    for _ in range(num_steps):
      gradients, stats, metrics = step.gradients(
        state, Metrics.zeros(), data, batch, inputs
      )
      state = step.update(state, gradients, stats, inputs)
      host = jax.device_get((metrics.loss, gradients, state))
      results.append(Results(*flat_params.to_tree(host)))
  return results


def as_computed(array: np.ndarray) -> np.ndarray:
  """Converts float32 to what is computed in."""
  return array.astype(jnp.float32) if array.dtype == np.float32 else array


@pytest.fixture(autouse=True)
def no_programs_are_kept():
  """Frees the many small programs of a model, which take gigabytes."""
  yield
  jax.clear_caches()


@contextlib.contextmanager
def float64() -> Iterator[None]:
  """Computes in float64 whatever the package computes in float32."""
  with jax.enable_x64(), pytest.MonkeyPatch.context() as monkeypatch:
    monkeypatch.setattr(jnp, "float32", jnp.float64)
    yield


def norm(tree: Any) -> float:
  squares = (np.square(x, dtype=np.float64) for x in jax.tree.leaves(tree))
  return float(np.sqrt(sum(x.sum() for x in squares)))


def check(results: Results, expected: Results, tolerances: dict[str, float]):
  """Checks differences relative to norms.

  A gradient that is zero but for rounding, such as that of a bias before a
  BatchNorm, has no relative precision: an array is as exact as its own norm or
  a thousandth of that of its tree is.
  """
  for part, own in results.parts().items():
    other = expected.parts()[part]
    floor = 1e-3 * norm(other)
    for (path, a), b in zip(
      jax.tree.leaves_with_path(own), jax.tree.leaves(other), strict=True
    ):
      difference = norm(np.float64(a) - np.float64(b)) / (norm(b) + floor)
      where = part + jax.tree_util.keystr(path)
      assert difference <= tolerances[part], where


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_two_steps_equal_those_of_plain_flax_in_float64(name):
  with float64():
    own, plain = (train(name, accelerated, 2) for accelerated in (True, False))
  # The second step starts from parameters that differ by rounding.
  for results, expected, tolerance in zip(
    own, plain, (1e-10, 1e-7), strict=True
  ):
    assert results.loss.dtype == np.float64
    check(results, expected, dict.fromkeys(results.parts(), tolerance))
    # Adam turns a gradient of mere rounding into up to 2e-4 of an update.
    for a, b in zip(
      jax.tree.leaves(results.state.params),
      jax.tree.leaves(expected.state.params),
      strict=True,
    ):
      np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-3 * LEARNING_RATE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["leaky_cnn", "resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("accelerated", [True, False])
def test_float32_differs_by_rounding(name, accelerated):
  """Compares with float64; plain Flax meets the same tolerances, not others.

  An activation next to zero that is rounded to the other side switches a ReLU,
  which changes gradients by up to 2 %: of ResNet-18 those of both, of
  MobileNetV2 those of our step.
  """
  (results,) = train(name, accelerated, 1)
  with float64():
    (expected,) = train(name, False, 1)
  tolerances = {"loss": 1e-5, "gradients": 5e-2, "batch_stats": 1e-4}
  check(results, expected, tolerances | {"mu": 5e-2, "nu": 5e-2})


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_model")
def test_bfloat16_learns_as_fast_as_plain_flax(tmp_path, prepared):
  config = tiny_run.config(prepared, dtype="bfloat16", num_epochs=4)
  with dispatch.tracing_for("gpu"):
    own = train_loop.train_and_evaluate(config, tmp_path / "own")
  with dispatch.use_xla():
    plain = train_loop.train_and_evaluate(config, tmp_path / "plain")
  losses = [
    [epoch["train_loss"] for epoch in run.epochs] for run in (own, plain)
  ]
  np.testing.assert_allclose(losses[0], losses[1], rtol=0.02)
  assert losses[0][-1] < 0.3 * losses[0][0]


@pytest.mark.parametrize("side", [48, 224])
def test_splits_of_similar_sizes_share_programs(side):
  rng = np.random.default_rng(0)
  shapes = set()
  for n in (97, 100):
    image = rng.integers(256, size=(n, side, side, 1), dtype=np.uint8)
    target = rng.integers(7, size=n, dtype=np.int32)
    with dispatch.tracing_for("gpu"):
      data = arrange_split({"image": image, "target": target})
    shapes.add((data["image"].rows.shape, data["target"].shape))
    batch = {"index": jnp.asarray([n - 1, 0, n - 2])}
    images, targets = gather(jax.device_put(data), batch)
    np.testing.assert_array_equal(images, image[batch["index"]])
    np.testing.assert_array_equal(targets, target[batch["index"]])
  assert len(shapes) == 1


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_only_a_tpu_warps_without_gathering(platform):
  config = default.get_config()
  config.input.image_size, config.input.channels = 48, 1
  config.augment.rotation = 10.0

  def prepare(images, labels):
    key = jax.random.key(0)
    return prepare_training_batch(key, images, labels, config, 7, None).images

  images = np.zeros((4, 48, 48, 1), np.uint8)
  with dispatch.tracing_for(platform):
    program = jax.jit(prepare).lower(images, np.zeros(4, np.int32)).as_text()
  assert ("gather" in program) == (platform == "gpu")
