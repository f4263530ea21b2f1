"""Programs compiled for a GPU or TPU that is not there, only described.

XLA compiles for a description of a device, with the extra `aot` installed.
Nothing can run, and nothing is autotuned: the choice of matrix product kernels
may differ on a device.
"""

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fer_jax import models
from fer_jax.configs import default
from fer_jax.ops import dispatch
from fer_jax.training import packing
from fer_jax.training.batch_preparation import arrange_split
from fer_jax.training.metrics import Metrics
from fer_jax.training.optim import schedules
from fer_jax.training.split_evaluation import EvalStep
from fer_jax.training.train_state import RunInputs
from fer_jax.training.train_step import TrainStep

NUM_CLASSES, NUM_EXAMPLES, IMAGE_SIZE = 7, 28_709, 48
AXIS = "batch"
AUGMENT = {"shift": {"shift": 0.1}, "rotation": {"rotation": 10.0}}
_SLICES = {8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8"}  # of TPU v5e
# Without these, libtpu asks for the machine's TPUs, and is for one process.
_LIBTPU = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_CHIPS_PER_HOST_BOUNDS": "2,2,1",
  "TPU_HOST_BOUNDS": "1,1,1",
  "TPU_WORKER_ID": "0",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# An H200 as XLA's compiler needs to know it: limits from the CUDA programming
# guide (compute capability 9.0), sizes from NVIDIA's data sheet.
_H200 = """
gpu_device_info {
  name: "NVIDIA H200"
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  memory_bandwidth: 4800000000000 device_memory_size: 151397597184
  l2_cache_size: 52428800
  threads_per_warp: 32 threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  shared_memory_per_core: 233472 shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  driver_version: "13.0.0" runtime_version: "12.8.0"
  compile_time_toolkit_version: "12.8.0" dnn_version: "9.10.0"
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H200"
"""


def devices(platform: str, count: int = 1) -> Sequence[Any]:
  """Returns described devices: an H200, or TPU v5e chips.

  Args:
    platform: "gpu" or "tpu".
    count: 1, or any number of TPU chips that a slice has (4, 8, 16, ...); up
      to 4 of a slice of 4.
  """
  if platform == "gpu":
    topology = topologies.get_topology_desc(
      platform="cuda",
      topology_name="H200",
      target_config=_H200,
      topology="1x1x1",
    )
  else:
    os.environ.update(_LIBTPU)
    topology = topologies.get_topology_desc(
      platform="tpu", topology_name=f"v5e:{_SLICES.get(count, '2x2')}"
    )
  return topology.devices[:count]


def lower_step(case: dict[str, Any], chips: Sequence[Any] | None = None) -> Any:
  """Lowers the training or evaluation step of a model, by one program.

  Args:
    case: `model`, `dtype`, `batch_size` (over all devices), `platform`,
      `num_devices`, `step` ("training" or "evaluation"), `plain` (as plain Flax
      and optax do it: the program before the package's own lowerings), and
      optionally `parallel`: "pmap" for that, else `shard_map` on several, and
      `augment`: a key of `AUGMENT`.
    chips: the devices; None describes those of the case.
  """
  config = default.get_config()
  config.model.name = case["model"]
  config.dtype = case["dtype"]
  config.augment.update(AUGMENT.get(case.get("augment", ""), {}))
  config.input.image_size, config.input.channels = IMAGE_SIZE, 1
  axis_name = AXIS if case["num_devices"] > 1 else None
  model = models.create(
    case["model"],
    NUM_CLASSES,
    dtype=jnp.dtype(case["dtype"]),
    axis_name=axis_name,
  )
  step = TrainStep(config, model, NUM_CLASSES, axis_name=axis_name)
  evaluate = EvalStep(config, model, NUM_CLASSES, axis_name)
  schedule = schedules.create(config.schedule, 1e-3, 100, 1, 1)
  inputs = RunInputs(jax.random.key(0), schedule, jnp.float32(0))
  shape = (IMAGE_SIZE, IMAGE_SIZE, 1)
  data: dict[str, Any] = {
    "image": np.zeros((NUM_EXAMPLES, *shape), np.uint8),
    "target": np.zeros(NUM_EXAMPLES, np.int32),
  }
  batch = {"index": np.zeros(case["batch_size"], np.int32)}
  with _traced(case):
    if not case["plain"]:
      data = arrange_split(data)
    shapes = jax.eval_shape(lambda: step.init(inputs.rng, shape, inputs))
    state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    state, metrics = packing.pack(step, state), Metrics.zeros()
    fn: Callable[..., Any] = step
    args: tuple[Any, ...] = (state, metrics, data, batch, inputs)
    donated: tuple[int, ...] = (0,)
    if case["step"] == "evaluation":
      batch["mask"] = np.zeros(case["batch_size"], bool)
      fn, donated = evaluate, ()
      args = (state.eval_variables(), metrics, data, batch)
    if chips is None:
      chips = devices(case["platform"], case["num_devices"])
    if case.get("parallel") == "pmap":
      return _lower_pmap(fn, args, chips, donated)
    return _lower(fn, args, chips, donated)


def _traced(case: dict[str, Any]) -> contextlib.AbstractContextManager[Any]:
  if case["plain"]:
    return dispatch.use_xla()
  return dispatch.tracing_for(case["platform"])


def _lower(
  fn: Callable[..., Any],
  args: tuple[Any, ...],
  chips: Sequence[Any],
  donated: tuple[int, ...],
) -> Any:
  """Lowers a function of one device for the devices; `args[3]` is the batch."""
  mesh = Mesh(np.array(chips), (AXIS,))
  specs = tuple(P(AXIS) if i == 3 else P() for i in range(len(args)))
  if len(chips) > 1:
    fn = jax.shard_map(
      fn, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False
    )
  described = tuple(
    jax.tree.map(
      lambda x, spec=spec: jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=NamedSharding(mesh, spec)
      ),
      arg,
    )
    for arg, spec in zip(args, specs, strict=True)
  )

  def program(*args: Any) -> Any:  # which gives it its name in dumps
    return fn(*args)

  return jax.jit(program, donate_argnums=donated).lower(*described)


def _lower_pmap(
  fn: Callable[..., Any],
  args: tuple[Any, ...],
  chips: Sequence[Any],
  donated: tuple[int, ...],
) -> Any:
  """Lowers a function as `_lower` does, by `jax.pmap`."""
  count = len(chips)

  def stacked(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((count, *x.shape), x.dtype)

  def split(x: Any) -> jax.ShapeDtypeStruct:
    shape = (count, x.shape[0] // count, *x.shape[1:])
    return jax.ShapeDtypeStruct(shape, x.dtype)

  described = [
    jax.tree.map(split if i == 3 else stacked, arg)
    for i, arg in enumerate(args)
  ]
  mapped = jax.pmap(
    fn, axis_name=AXIS, devices=list(chips), donate_argnums=donated
  )
  return mapped.lower(*described)
