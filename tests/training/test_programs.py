"""Properties of compiled programs that hold on every machine."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.configs import default
from fer_jax.models import resnet
from fer_jax.ops import dispatch
from fer_jax.training.data_parallel import DataParallel
from fer_jax.training.metrics import Metrics
from fer_jax.training.optim import schedules
from fer_jax.training.train_state import RunInputs
from fer_jax.training.train_step import TrainStep


@pytest.fixture(scope="module")
def lowered():
  """A training step of a small ResNet on four devices, as on accelerators."""
  config = default.get_config()
  config.input.image_size = 32
  config.input.channels = 1
  parallel = DataParallel("shard_map")
  model = resnet.ResNet(
    stage_sizes=(1, 1),
    block=resnet.BasicBlock,
    num_classes=7,
    axis_name=parallel.axis_name,
  )
  step = TrainStep(config.lock(), model, 7, axis_name=parallel.axis_name)
  schedule = schedules.create(config.schedule, 1e-3, 10, 1)
  inputs = RunInputs(jax.random.key(0), schedule, jnp.float32(0))
  state = jax.eval_shape(
    lambda key: step.init(key, (32, 32, 1), inputs), jax.random.key(0)
  )
  data = {
    "image": np.zeros((16, 32, 32, 1), np.uint8),
    "target": np.zeros(16, np.int32),
  }
  batch = {"index": np.zeros(8, np.int32)}
  with dispatch.use_xla():
    jitted = parallel.jit(step.__call__, 3, donate_argnums=(0,))
    return jitted.lower(state, Metrics.zeros(), data, batch, inputs)


def test_convolutions_need_no_transposes(lowered):
  text = lowered.as_text()
  assert text.count("stablehlo.convolution") > 10
  shapes = re.findall(r"stablehlo\.transpose .*-> tensor<(\S+)x\w+>", text)
  assert [shape for shape in shapes if shape.count("x") > 1] == []


def test_all_gradients_are_reduced_at_once(lowered):
  reduced = re.findall(r"= (.*) all-reduce\(", lowered.compile().as_text())
  (of_kernels,) = [shapes for shapes in reduced if "f32[3,3," in shapes]
  assert of_kernels.count("f32[3,3,") == 4
  assert "f32[128,7]" in of_kernels


def test_no_step_calls_the_host(lowered):
  compiled = lowered.compile().as_text()
  assert "callback" not in lowered.as_text() + compiled
  assert "infeed" not in compiled and "outfeed" not in compiled


def test_the_state_given_is_taken(lowered):
  """Its memory becomes the new state's."""
  compiled = lowered.compile().as_text().splitlines()[0]
  arrays = [x for x in jax.tree.leaves(lowered.args_info[0][0]) if x.shape]
  assert len(arrays) > 50
  assert len(re.findall("m(?:ay|ust)-alias", compiled)) >= len(arrays)
