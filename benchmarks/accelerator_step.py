"""One step measurement of accelerator.py, in a process of its own.

python benchmarks/accelerator_step.py '{"model": "resnet18", ...}' prints a row
as JSON on its last line.
"""

import json
import sys
import time
from typing import Any


def measure(case: dict[str, Any]) -> dict[str, Any]:
  """Measures the training step of a model.

  Args:
    case: `model`, `dtype`, `batch_size`, `steps_per_call`, `turns`, `steps` (of
      a turn), `cache` (a folder of compiled programs, or "off"), `seeds` (runs
      that are vmapped in one program; 1 for none).

  Returns:
    Seconds until the first step is done (imports apart), milliseconds per step
    (median, fastest and slowest turn), images per second and memory.
  """
  started = time.perf_counter()
  import depth_worker
  import jax
  import jax.numpy as jnp
  import timing

  from fer_jax.training.runtime import startup

  startup.start(case["cache"])
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.devices()
  imported = time.perf_counter()
  run = depth_worker.Run({**case, "image_size": 48, "channels": 1})
  call, per_call = run.step, run.steps_per_call
  if case["seeds"] > 1:
    seeds = jnp.arange(case["seeds"])

    def copies(tree: Any) -> Any:
      return jax.tree.map(lambda x: jnp.stack([x] * len(seeds)), tree)

    step = jax.jit(
      jax.vmap(run.train_step, (0, 0, None, None, None)), donate_argnums=(0,)
    )
    state, metrics = copies(run.state), copies(run.metrics)

    def call() -> Any:
      nonlocal state, metrics
      state, metrics = step(state, metrics, run.data, run.batch, run.inputs)
      return metrics

  timing.once(call)
  first_step = time.perf_counter() - imported
  steps = max(1, case["steps"] // per_call)
  timed = timing.interleave(
    {"step": call}, num_turns=case["turns"], calls_per_turn=steps
  )["step"]
  images = case["batch_size"] * per_call * case["seeds"]
  return {
    "import_s": round(imported - started, 2),
    "first_step_s": round(first_step, 2),
    "step_ms": round(1e3 * timed.median / per_call, 4),
    "step_ms_low": round(1e3 * timed.low / per_call, 4),
    "step_ms_high": round(1e3 * timed.high / per_call, 4),
    "images_per_second": round(images / timed.median, 1),
    "peak_memory_mb": round(timing.peak_memory() / 1e6, 1),
    "device": jax.devices()[0].device_kind,
  }


if __name__ == "__main__":
  print(json.dumps(measure(json.loads(sys.argv[1]))), flush=True)
