"""One row of depth_timing: measured in a process of its own."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import timing

from fer_jax import models
from fer_jax.configs import default
from fer_jax.models.summary import summarize
from fer_jax.training import parallel, schedules
from fer_jax.training.inputs import RunInputs
from fer_jax.training.metrics import Sums
from fer_jax.training.parallel import Spread
from fer_jax.training.setup import steps_per_call
from fer_jax.training.step import Steps

NUM_CLASSES = 7
NUM_ROWS = 1024  # images on the device


def measure(case: dict[str, Any]) -> dict[str, Any]:
  """Measures a model.

  Args:
    case: `model`, `batch_size`, `dtype`, `image_size`, `channels`, `turns`,
      `steps` of a turn, `cache` (an empty folder), `dump_hlo` ("" for none).

  Returns:
    The row, fit for JSON.
  """
  jax.config.update("jax_compilation_cache_dir", case["cache"])
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
  peak = timing.matmul_peak(case["dtype"])
  cold, _ = _compiled(case)
  jax.clear_caches()
  cached, run = _compiled(case)
  timings = timing.interleave(
    {"step": run.step, "inference": run.inference},
    num_turns=case["turns"],
    calls_per_turn=case["steps"],
  )
  step, inference = timings["step"], timings["inference"]
  summary = summarize(
    run.steps.model, (case["image_size"], case["image_size"], case["channels"])
  )
  # A call may be several steps.
  images = case["batch_size"] * run.steps_per_call
  rate = images / step.median
  flops = rate * summary.training_flops
  if case["dump_hlo"]:
    run.dump(case["dump_hlo"], case["model"])
  return {
    "model": case["model"],
    "batch_size": case["batch_size"],
    "dtype": case["dtype"],
    "image_size": case["image_size"],
    "channels": case["channels"],
    **timing.environment(),
    "num_parameters": summary.num_parameters,
    "compile_cold_s": round(cold, 3),
    "compile_cached_s": round(cached, 3),
    "step_ms": round(1e3 * step.median / run.steps_per_call, 3),
    "step_ms_low": round(1e3 * step.low / run.steps_per_call, 3),
    "step_ms_high": round(1e3 * step.high / run.steps_per_call, 3),
    "num_turns": step.num_turns,
    "images_per_second": round(rate, 1),
    "inference_images_per_second": round(
      case["batch_size"] / inference.median, 1
    ),
    "peak_memory_bytes": timing.peak_memory(),
    "training_gflop_per_image": round(summary.training_flops / 1e9, 4),
    "xla_gflop_per_image": run.xla_gflop_per_image(),
    "gflops_per_second": round(flops / 1e9, 1),
    "peak_gflops_per_second": round(peak / 1e9, 1),
    "share_of_peak": round(flops / peak, 4),
  }


class _Run:
  """A training step and an inference step on random images."""

  def __init__(self, case: dict[str, Any]):
    config = default.get_config()
    config.model.name = case["model"]
    config.dtype = case["dtype"]
    config.input.image_size = case["image_size"]
    config.input.channels = case["channels"]
    self.batch_size = case["batch_size"]
    self.spread = Spread(config.parallel)
    self.spread.check_batch("batch_sizes", self.batch_size)
    model = models.create(
      case["model"],
      NUM_CLASSES,
      dtype=jnp.dtype(case["dtype"]),
      axis_name=self.spread.axis_name,
    )
    self.steps = Steps(
      config,
      model,
      NUM_CLASSES,
      axis_name=self.spread.axis_name,
    )
    self.steps_per_call = steps_per_call(config)
    shape = (case["image_size"], case["image_size"], case["channels"])
    rng = np.random.default_rng(0)
    data = {
      "image": rng.integers(256, size=(NUM_ROWS, *shape), dtype=np.uint8),
      "target": rng.integers(NUM_CLASSES, size=NUM_ROWS, dtype=np.int32),
    }
    self.data = self.spread.replicate(data)
    key = jax.random.key(0)
    schedule = schedules.create(config.schedule, 1e-3, 100, 1, 1)
    inputs = RunInputs(key, schedule, jnp.float32(0))
    state = parallel.init_call(self.steps, shape)(key, inputs)
    self.state = self.spread.replicate(state)
    self.inputs = self.spread.replicate(inputs)
    self.sums = self.spread.replicate(Sums.zeros())
    self.stacked = self.steps_per_call > 1
    size = (self.steps_per_call, self.batch_size)
    index = rng.integers(NUM_ROWS, size=size, dtype=np.int32)
    index = index if self.stacked else index[0]
    self.batch = self.spread.shard({"index": index}, stacked=self.stacked)
    mask = np.ones(self.batch_size, bool)
    one = index[0] if self.stacked else index
    self.eval_batch = self.spread.shard({"index": one, "mask": mask})
    self.train = parallel.training_call(self.spread, self.steps, self.stacked)
    self.evaluate = parallel.evaluation_call(self.spread, self.steps)

  def step(self) -> Any:
    """Trains; several steps where a call is several."""
    self.state, self.sums = self.train(
      self.state, self.sums, self.data, self.batch, self.inputs
    )
    return self.sums

  def inference(self) -> Any:
    """Evaluates a batch."""
    variables = self.state.eval_variables()
    return self.evaluate(variables, self.sums, self.data, self.eval_batch)

  def _gradients(self) -> Any:
    """The gradients of one step on one device, compiled (from the cache)."""
    state, sums, data, inputs = self.spread.fetch(
      (self.state, self.sums, self.data, self.inputs)
    )
    share = self.batch_size // self.spread.num_devices
    batch = {"index": np.zeros(share, np.int32)}
    steps = self.steps
    if self.spread.axis_name:
      return None
    return jax.jit(steps.gradients).lower(state, sums, data, batch, inputs)

  def xla_gflop_per_image(self) -> float | None:
    """What XLA counts for the gradients; None where it does not."""
    lowered = self._gradients()
    if lowered is None:
      return None
    cost = lowered.compile().cost_analysis() or {}
    flops = cost.get("flops")
    return round(flops / self.batch_size / 1e9, 4) if flops else None

  def dump(self, folder: str, name: str) -> None:
    """Writes the optimised program of the gradients."""
    lowered = self._gradients()
    if lowered is not None:
      path = pathlib.Path(folder)
      path.mkdir(parents=True, exist_ok=True)
      (path / f"{name}.hlo.txt").write_text(lowered.compile().as_text())


def _compiled(case: dict[str, Any]) -> tuple[float, _Run]:
  """A run whose programs are compiled, and the seconds that took."""
  run = _Run(case)
  first = timing.once(run.step)
  steady = timing.once(run.step)
  return max(first - steady, 0.0), run
