"""Timing of calls for the benchmarks.

Compilation is timed separately from steps. Steps are timed interleaved, so that
the compared variants are affected by the same noise, and reported as the median
with the range.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import memory


@dataclasses.dataclass(frozen=True)
class Timing:
  """Seconds per call.

  Attributes:
    median: median over the repetitions.
    low: the fastest repetition.
    high: the slowest repetition.
    num_turns: number of repetitions.
  """

  median: float
  low: float
  high: float
  num_turns: int

  @classmethod
  def of(cls, seconds: list[float]) -> "Timing":
    """Returns the timing of repetitions of these lengths."""
    return cls(
      statistics.median(seconds), min(seconds), max(seconds), len(seconds)
    )


def interleave(
  calls: Mapping[str, Callable[[], Any]],
  *,
  num_turns: int = 5,
  calls_per_turn: int = 3,
  warm_up: int = 2,
  before: Mapping[str, Callable[[], Any]] | None = None,
) -> dict[str, Timing]:
  """Times calls interleaved: a, b, a, b, ...

  Args:
    calls: functions by name, which return arrays; these are waited for once per
      repetition, so that a device is kept busy as in training.
    num_turns: number of repetitions of each.
    calls_per_turn: calls per repetition, over which the mean is taken.
    warm_up: calls of each before the timing.
    before: functions called before each repetition of a name, not timed.
  """
  for call in calls.values():
    for _ in range(warm_up):
      jax.block_until_ready(call())
  seconds: dict[str, list[float]] = {name: [] for name in calls}
  for _ in range(num_turns):
    for name, call in calls.items():
      if before and name in before:
        before[name]()
      started = time.perf_counter()
      out = None
      for _ in range(calls_per_turn):
        out = call()
      jax.block_until_ready(out)
      seconds[name].append((time.perf_counter() - started) / calls_per_turn)
  return {name: Timing.of(values) for name, values in seconds.items()}


def once(call: Callable[[], Any]) -> float:
  """Returns the seconds of one call, for example one that compiles."""
  started = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - started


def matmul_peak(dtype: str) -> float:
  """Returns the FLOP/s of a matrix product, the practical peak.

  Args:
    dtype: of the matrices.
  """
  # On an accelerator a small one takes as long as its dispatch.
  size = 2048 if jax.default_backend() == "cpu" else 8192
  a = jnp.ones((size, size), dtype)
  # Sums in float32, without which XLA emulates bfloat16 on a CPU.
  product = jax.jit(
    lambda a: jnp.matmul(a, a, preferred_element_type="float32")
  )
  timing = interleave(
    {"product": lambda: product(a)}, num_turns=7, calls_per_turn=5
  )["product"]
  return 2 * size**3 / timing.low


def peak_memory() -> int:
  """Returns the peak memory in bytes: of the device, on CPU of the process."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if "peak_bytes_in_use" in stats:
    return int(stats["peak_bytes_in_use"])
  return memory.peak()


def environment() -> dict[str, str]:
  """Returns the devices and JAX's version, for the rows of a table."""
  devices = jax.local_devices()
  return {
    "device": f"{len(devices)} x {devices[0].device_kind}",
    "jax": jax.__version__,
  }
