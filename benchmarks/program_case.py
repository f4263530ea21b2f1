"""One row of gpu_program.py or tpu_program.py, in a process of its own.

python benchmarks/program_case.py '{"platform": "gpu", ...}' prints the row as
JSON on its last line.
"""

import json
import os
import pathlib
import sys
import tempfile
import time
from typing import Any


def measure(case: dict[str, Any]) -> dict[str, Any]:
  """Compiles a step and counts what it consists of.

  Args:
    case: as `described_device.lower_step` takes it, and `cuda_graphs`.

  Returns:
    The row: the case, versions, seconds to compile, memory, and what
    `_of_gpu` or `_of_tpu` adds.
  """
  with tempfile.TemporaryDirectory(prefix="gpu_program_") as dump:
    _set_flags(case, dump)
    import described_device
    import jax
    import jaxlib

    from fer_jax.models import create, summary

    lowered = described_device.lower_step(case)
    started = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - started
    size = described_device.IMAGE_SIZE
    model = create(case["model"], described_device.NUM_CLASSES)
    counted = summary.summarize(model, (size, size, 1))
    flops = counted.training_flops
    if case["step"] == "evaluation":
      flops = counted.forward_flops
    memory = compiled.memory_analysis()
    of_platform = _of_gpu if case["platform"] == "gpu" else _of_tpu
    return {
      **case,
      "jax": jax.__version__,
      "jaxlib": jaxlib.__version__,
      "compile_s": round(seconds, 1),
      "model_gflop": round(flops * case["batch_size"] / 1e9, 1),
      "argument_mib": _mib(memory.argument_size_in_bytes),
      "temp_mib": _mib(memory.temp_size_in_bytes),
      **of_platform(case, compiled, flops, dump),
    }


def _set_flags(case: dict[str, Any], dump: str) -> None:
  """Sets what must be set before JAX is imported."""
  os.environ["JAX_PLATFORMS"] = "cpu"
  os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
  if case["platform"] == "gpu":
    from fer_jax.training.runtime import xla_flags

    flags = os.environ.get("XLA_FLAGS", "")
    module = "--xla_dump_hlo_module_re=jit_program"
    os.environ["XLA_FLAGS"] = f"{flags} --xla_dump_to={dump} {module}".strip()
    xla_flags.configure_cuda_graphs(case["cuda_graphs"])


def _of_gpu(
  case: dict[str, Any], compiled: Any, flops: int, dump: str
) -> dict[str, Any]:
  """Kernels by group, bytes they move, CUDA graphs and launches."""
  del case, flops
  import hlo_kernels

  hlo = compiled.as_text()
  kernels = hlo_kernels.count(hlo)
  (thunks,) = pathlib.Path(dump).glob("*thunk_sequence_after_thunk_passes.txt")
  return {
    "kernels": sum(kernels.values()),
    **kernels,
    "moved_mib": _mib(hlo_kernels.bytes_moved(hlo)),
    **hlo_kernels.launches(thunks.read_text()),
  }


# Google's data sheet of v5e. At JAX's default precision, factors in float32 are
# rounded to bfloat16 there, so that both have the same peak.
_PEAK_FLOPS = {"bfloat16": 197e12, "float32": 197e12}


def _of_tpu(
  case: dict[str, Any], compiled: Any, flops: int, dump: str
) -> dict[str, Any]:
  """What XLA's cost model says of one chip."""
  del dump
  cost = compiled.cost_analysis()
  needed = flops * case["batch_size"] / case["num_devices"]
  seconds = cost["optimal_seconds"]
  return {
    "xla_gflop": round(cost["flops"] / 1e9, 1),
    "useful_flops": round(needed / cost["flops"], 3),
    "moved_mib": _mib(cost["bytes accessed"]),
    # XLA cannot estimate every program, and says so by a negative number.
    "estimated_ms": round(1e3 * seconds, 3) if seconds > 0 else "",
    "estimated_utilization": round(
      needed / seconds / _PEAK_FLOPS[case["dtype"]], 4
    )
    if seconds > 0
    else "",
  }


def _mib(size: float) -> float:
  return round(size / 2**20, 1)


if __name__ == "__main__":
  print(json.dumps(measure(json.loads(sys.argv[1]))))
