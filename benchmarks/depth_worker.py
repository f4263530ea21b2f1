"""The process that measures one case of depth_timing."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import memory
import numpy as np
import timing
import workers

from fer_jax import models
from fer_jax.configs import default
from fer_jax.errors import UserError
from fer_jax.models.summary import summarize
from fer_jax.ops import dispatch
from fer_jax.training import compiled_steps, packing
from fer_jax.training.batch_preparation import arrange_split
from fer_jax.training.data_parallel import DataParallel
from fer_jax.training.metrics import Metrics
from fer_jax.training.optim import schedules
from fer_jax.training.runtime import host_evaluation, startup
from fer_jax.training.split_evaluation import EvalStep, make_eval_step
from fer_jax.training.train_state import RunInputs
from fer_jax.training.train_step import TrainStep

NUM_CLASSES = 7
NUM_IMAGES = 1024  # on the device


def measure(case: dict[str, Any]) -> dict[str, Any]:
  """Measures a model.

  Args:
    case: `model`, `batch_size`, `dtype`, `image_size`, `channels`, `devices`
      (required number of devices; 0 for any), `turns` (repetitions), `steps`
      per repetition, `cache` (an empty folder), `dump_hlo` ("" for none).

  Returns:
    The row of the table, as JSON values.
  """
  startup.start(case["cache"])  # before JAX begins
  if case["devices"] not in (0, jax.device_count()):
    raise UserError(
      f"devices={case['devices']} are not available: there are"
      f" {jax.device_count()}"
    )
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
  peak = timing.matmul_peak(case["dtype"])
  if jax.default_backend() != "cpu":  # CPU devices share the cores
    peak *= jax.device_count()
  cold, _ = _compiled(case)
  del _  # The peak memory is measured in the next run.
  jax.clear_caches()
  memory.reset_peak()
  cached, run = _compiled(case)
  timings = timing.interleave(
    {"step": run.step, "inference": run.inference},
    num_turns=case["turns"],
    calls_per_turn=case["steps"],
  )
  used = timing.peak_memory()
  step, inference = timings["step"], timings["inference"]
  summary = summarize(
    run.train_step.model,
    (case["image_size"], case["image_size"], case["channels"]),
  )
  # A call can be several steps.
  rate = case["batch_size"] * run.steps_per_call / step.median
  flops = rate * summary.training_flops
  if case["dump_hlo"]:
    run.dump(case["dump_hlo"])
  return {
    "model": case["model"],
    "batch_size": case["batch_size"],
    "dtype": case["dtype"],
    "image_size": case["image_size"],
    "channels": case["channels"],
    **timing.environment(),
    "num_devices": run.parallel.num_devices,
    "num_parameters": summary.num_parameters,
    "compile_cold_s": round(cold, 3),
    "compile_cached_s": round(cached, 3),
    **_milliseconds("step_ms", step, run.steps_per_call),
    **_milliseconds("inference_ms", inference),
    "num_turns": step.num_turns,
    "images_per_second": round(rate, 1),
    "inference_images_per_second": round(
      case["batch_size"] / inference.median, 1
    ),
    "peak_memory_bytes": used,
    "training_gflop_per_image": round(summary.training_flops / 1e9, 4),
    "xla_gflop_per_image": run.xla_gflop_per_image(),
    "gflops_per_second": round(flops / 1e9, 1),
    "peak_gflops_per_second": round(peak / 1e9, 1),
    "share_of_peak": round(flops / peak, 4),
  }


def _milliseconds(
  name: str, of: timing.Timing, steps: int = 1
) -> dict[str, float]:
  """Returns the median, the fastest and the slowest repetition of a step."""
  return {
    f"{name}{ending}": round(1e3 * seconds / steps, 3)
    for ending, seconds in (
      ("", of.median),
      ("_low", of.low),
      ("_high", of.high),
    )
  }


class Run:
  """A training step and an inference step on random images.

  Args:
    case: as for `measure`; optionally also `options` of the model, `parallel`,
      `optimizer` and `steps_per_call`, as in configs.
  """

  def __init__(self, case: dict[str, Any]):
    self._case = case
    config = default.get_config()
    config.model.name = case["model"]
    config.dtype = case["dtype"]
    config.input.image_size = case["image_size"]
    config.input.channels = case["channels"]
    config.parallel = case.get("parallel", config.parallel)
    config.optimizer.name = case.get("optimizer", config.optimizer.name)
    config.steps_per_call = case.get("steps_per_call", 0)
    self.batch_size = case["batch_size"]
    self.parallel = DataParallel(config.parallel)
    self.parallel.check_batch("batch_sizes", self.batch_size)
    model = models.create(
      case["model"],
      NUM_CLASSES,
      **case.get("options", {}),
      dtype=dispatch.compute_dtype(case["dtype"]),
      axis_name=self.parallel.axis_name,
    )
    axis_name = self.parallel.axis_name
    self.train_step = TrainStep(config, model, NUM_CLASSES, axis_name=axis_name)
    self.steps_per_call = config.steps_per_call or 1
    shape = (case["image_size"], case["image_size"], case["channels"])
    rng = np.random.default_rng(0)
    data: dict[str, np.ndarray] = {
      "image": rng.integers(256, size=(NUM_IMAGES, *shape), dtype=np.uint8),
      "target": rng.integers(NUM_CLASSES, size=NUM_IMAGES, dtype=np.int32),
    }
    self.data = self.parallel.replicate(arrange_split(data))
    key = jax.random.key(0)
    schedule = schedules.create(config.schedule, 1e-3, 100, 1, 1)
    inputs = RunInputs(key, schedule, jnp.float32(0))
    init = jax.jit(lambda key, inputs: self.train_step.init(key, shape, inputs))
    traced = init.trace(key, inputs)
    state = host_evaluation.evaluate(traced, key, inputs)
    self.state = self.parallel.replicate(packing.pack(self.train_step, state))
    self.inputs = self.parallel.replicate(inputs)
    self.metrics = self.parallel.replicate(Metrics.zeros())
    self.stacked = self.steps_per_call > 1
    size = (self.steps_per_call, self.batch_size)
    index = rng.integers(NUM_IMAGES, size=size, dtype=np.int32)
    share = self.batch_size // jax.process_count()  # this process's part
    start = share * jax.process_index()
    index = index[:, start : start + share]
    index = index if self.stacked else index[0]
    self.batch = self.parallel.shard({"index": index}, stacked=self.stacked)
    mask = np.ones(share, bool)
    one = index[0] if self.stacked else index
    self.eval_batch = self.parallel.shard({"index": one, "mask": mask})
    make = (
      compiled_steps.make_train_steps
      if self.stacked
      else compiled_steps.make_train_step
    )
    self.train = make(self.parallel, self.train_step)
    self.evaluate = make_eval_step(
      self.parallel, EvalStep(config, model, NUM_CLASSES, axis_name)
    )

  def step(self) -> Any:
    """Runs one training call, which can be several steps."""
    self.state, self.metrics = self.train(
      self.state, self.metrics, self.data, self.batch, self.inputs
    )
    return self.metrics

  def inference(self) -> Any:
    """Evaluates one batch."""
    variables = self.state.eval_variables()
    return self.evaluate(variables, self.metrics, self.data, self.eval_batch)

  def lowered(self) -> Any:
    """Returns the lowered program of one step's gradients."""
    share = self.batch_size // jax.process_count()
    batch = self.parallel.shard({"index": np.zeros(share, np.int32)})

    def gradients(
      *args: Any,
    ) -> Any:  # a new function, so that it is traced again
      return self.train_step.gradients(*args)

    arguments = self.state, self.metrics, self.data, batch, self.inputs
    return self.parallel.jit(gradients, 3).lower(*arguments)

  def xla_gflop_per_image(self) -> float | None:
    """Returns XLA's count for the gradients; None if it has none.

    It is for XLA's convolutions, since XLA cannot analyze our kernels.
    """
    with dispatch.use_xla():
      cost = self.lowered().cost_analysis() or {}
    flops = cost.get("flops", 0) * self.parallel.num_devices  # of one device
    return round(flops / self.batch_size / 1e9, 4) if flops > 0 else None

  def dump(self, folder: str) -> None:
    """Writes the lowered and the compiled program of the gradients."""
    path = pathlib.Path(folder)
    case, lowered = self._case, self.lowered()
    name = "{model}_{batch_size}_{dtype}_{image_size}px".format(**case)
    try:
      path.mkdir(parents=True, exist_ok=True)
      (path / f"{name}.stablehlo.txt").write_text(lowered.as_text())
      (path / f"{name}.hlo.txt").write_text(lowered.compile().as_text())
    except OSError as e:
      raise UserError(f"cannot write dump_hlo={path}: {e.strerror}") from e


def _compiled(case: dict[str, Any]) -> tuple[float, Run]:
  """Returns the compilation time in seconds, and the compiled run."""
  run = Run(case)
  first = timing.once(run.step)
  steady = timing.once(run.step)
  return max(first - steady, 0.0), run


if __name__ == "__main__":
  workers.serve({"measure": measure})
