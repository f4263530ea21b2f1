"""Packed parameters train as the tree of arrays does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run

from fer_jax.ops import dispatch
from fer_jax.training import (
  batch_preparation,
  compiled_steps,
  flat_params,
  packing,
  train_loop,
)
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.flat_params import Flat
from fer_jax.training.metrics import Metrics

pytestmark = pytest.mark.usefixtures("tiny_model")


def config(prepared, **fields):
  """A network that is quick to compile without kernels of our own."""
  model = {
    "model__name": "leaky_cnn",
    "model__widths": (4, 8),
    "model__dense": 16,
    "model__conv_batch_norm": True,
    "input__image_size": 8,
  }
  return tiny_run.config(prepared, **model, **fields)


def assert_close(one, other, rtol=2e-5, atol=2e-7):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
    one,
    other,
  )


def test_a_tree_survives_packing():
  rng = np.random.default_rng(0)
  tree = {
    "conv": {"kernel": rng.normal(size=(3, 2, 4, 5)).astype(np.float32)},
    "fc": {
      "bias": rng.normal(size=7).astype(np.float32),
      "kernel": rng.normal(size=(5, 7)).astype(np.float32),
    },
  }
  flat = Flat.from_tree(tree, lambda path, _: path.endswith("bias"))
  assert [vector.shape for vector in flat.vectors.values()] == [(155,), (7,)]
  # Kernels of convolutions lie in OHWI order.
  np.testing.assert_array_equal(
    flat.vectors["0"][: 3 * 2 * 4], tree["conv"]["kernel"][..., 0].ravel()
  )
  jax.tree.map(np.testing.assert_array_equal, flat.to_tree(), tree)
  doubled = jax.jit(lambda flat: jax.tree.map(lambda x: 2 * x, flat))(flat)
  jax.tree.map(
    lambda one, other: np.testing.assert_array_equal(one, 2 * other),
    doubled.to_tree(),
    tree,
  )
  # Equal groups are one object, so that JAX compares them at once.
  again = Flat.from_tree(tree, lambda path, _: path.endswith("bias"))
  assert again.groups is flat.groups


OPTIONS = [
  {"optimizer__accumulate_steps": 2},
  pytest.param(
    {"optimizer__name": "sgd", "optimizer__weight_decay": 0.1},
    marks=pytest.mark.slow,
  ),
  pytest.param(
    {"optimizer__lr_multipliers": "conv1:0.1,fc2:10"}, marks=pytest.mark.slow
  ),
  {"freeze__patterns": "conv1,conv2", "freeze__unfreeze_epochs": (1,)},
  {
    "optimizer__name": "adamw",
    "optimizer__weight_decay": 0.01,
    "optimizer__clip_norm": 0.1,
    "optimizer__lr_multipliers": "fc2:10",
    "freeze__patterns": "conv1",
    "ema_decay": 0.9,
  },
]


def trained(parts, state, num_steps=3):
  """The state after some steps, unpacked."""
  data = parts.train_data
  step, metrics = jax.jit(parts.train_step(0).__call__), Metrics.zeros()
  for start in range(num_steps):
    rows = {"index": np.arange(start, start + 16, dtype=np.int32)}
    state, metrics = step(state, metrics, data, rows, parts.inputs)
  return flat_params.to_tree(jax.device_get(state)), jax.device_get(metrics)


@pytest.mark.parametrize("fields", OPTIONS, ids=str)
def test_options_train_as_with_the_tree(prepared, fields):
  parts = create_experiment(config(prepared, **fields))
  with dispatch.tracing_for("gpu"):
    state = parts.init_state()
    packed = packing.pack(parts.train_step(0), state)
    assert isinstance(packed.params, Flat)
    assert len(jax.tree.leaves(packed)) < len(jax.tree.leaves(state))
    assert_close(flat_params.to_tree(packed), jax.device_get(state), 0, 0)
    own, own_metrics = trained(parts, packed)
    reference, metrics = trained(parts, state)
  paths = [
    [path for path, _ in jax.tree.leaves_with_path(tree)]
    for tree in (own, reference)
  ]
  assert paths[0] == paths[1]
  assert_close(own, reference)
  assert_close(own_metrics, metrics)
  before = jax.device_get(state)
  assert not np.array_equal(
    own.params["fc2"]["kernel"], before.params["fc2"]["kernel"]
  )


def test_gradients_equal_those_of_plain_flax(prepared):
  parts = create_experiment(config(prepared))
  data = parts.train_data
  rows = {"index": np.arange(32, dtype=np.int32)}
  state = parts.init_state()
  args = Metrics.zeros(), data, rows, parts.inputs
  with dispatch.use_xla():
    reference = jax.jit(lambda *a: parts.train_step(0).gradients(*a))(
      state, *args
    )
  with dispatch.tracing_for("gpu"):
    own = jax.jit(parts.train_step(0).gradients)(
      packing.pack(parts.train_step(0), state), *args
    )
  own = flat_params.to_tree(own)
  for one, other in zip(
    jax.tree.leaves(own), jax.tree.leaves(reference), strict=True
  ):
    scale = float(jnp.abs(other).max())
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * scale + 1e-7)


def test_an_optimizer_that_looks_at_shapes_keeps_the_tree(prepared):
  parts = create_experiment(config(prepared, optimizer__name="adafactor"))
  with dispatch.tracing_for("gpu"):
    state = parts.init_state()
    assert packing.pack(parts.train_step(0), state) is state


def test_on_a_cpu_nothing_is_packed(prepared):
  parts = create_experiment(config(prepared))
  state = parts.init_state()
  assert packing.pack(parts.train_step(0), state) is state


@pytest.mark.parametrize("mode", ["pmap", "shard_map"])
def test_four_devices_equal_one(prepared, mode):
  fields = {"optimizer__name": "sgd", "model__dropout": 0.0}
  states = []
  with dispatch.tracing_for("gpu"):
    for parallel in ("jit", mode):
      parts = create_experiment(config(prepared, parallel=parallel, **fields))
      devices = parts.parallel
      state = parts.place(parts.init_state(), epoch=0)
      data, inputs = parts.train_data, parts.device_inputs
      step = compiled_steps.make_train_step(devices, parts.train_step(0))
      rows = devices.shard({"index": np.arange(32, dtype=np.int32)})
      metrics = devices.replicate(Metrics.zeros())
      for _ in range(2):
        state, metrics = step(state, metrics, data, rows, inputs)
      states.append(devices.fetch(state))
  assert_close(states[1], states[0], rtol=1e-4, atol=1e-5)


def test_checkpoints_hold_the_tree_and_resume(tmp_path, prepared):
  """Also where more is trained than before: its state is packed otherwise."""
  fields = {"freeze__patterns": "conv1", "freeze__unfreeze_epochs": (1,)}
  run = config(prepared, **fields)
  with dispatch.tracing_for("gpu"):
    packed = train_loop.train_and_evaluate(run, tmp_path / "packed")
    again = train_loop.train_and_evaluate(run, tmp_path / "packed")
  variables, _ = Checkpoints(tmp_path / "packed").restore_variables("latest")
  assert variables["params"]["conv1"]["kernel"].shape == (3, 3, 1, 4)
  assert again.validation == packed.validation
  plain = train_loop.train_and_evaluate(run, tmp_path / "plain")
  np.testing.assert_allclose(
    packed.validation.loss, plain.validation.loss, rtol=0.05
  )


def test_images_on_accelerators_are_rows(prepared):
  """Every index gives the same image as on a CPU."""
  parts = create_experiment(config(prepared))
  split = parts.dataset.split("train")
  index = np.array([3, 0, 7], np.int32)
  with dispatch.tracing_for("gpu"):
    data = parts.device_data(split)
  assert data["image"].rows.ndim == 2
  images, _ = batch_preparation.gather(data, {"index": jnp.asarray(index)})
  np.testing.assert_array_equal(images, split.arrays()["image"][index])
