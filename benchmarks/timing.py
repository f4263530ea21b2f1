"""What every benchmark here measures with.

Compilation is timed apart from steps; steps are timed in turns, so that what
is compared meets the same noise, and reported as a median with its spread.
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
  """Seconds of one call.

  Attributes:
    median: of all turns.
    low: the fastest turn.
    high: the slowest.
    num_turns: how many there were.
  """

  median: float
  low: float
  high: float
  num_turns: int

  @classmethod
  def of(cls, seconds: list[float]) -> "Timing":
    """Sums up what each turn took."""
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
  """Times calls in turns: a, b, a, b, ...

  Args:
    calls: by name; each returns arrays, which are waited for once a turn, so
      that a device is kept busy as in training.
    num_turns: of each.
    calls_per_turn: whose mean is one measurement.
    warm_up: calls of each that are not counted.
    before: what a name's turns are made ready with, not timed.
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
  """Seconds of one call, waited for; for compilation."""
  started = time.perf_counter()
  jax.block_until_ready(call())
  return time.perf_counter() - started


def matmul_peak(dtype: str, size: int = 2048) -> float:
  """The FLOP/s of a square matrix product, the machine's practical limit."""
  a = jnp.ones((size, size), dtype)
  product = jax.jit(lambda a: a @ a)
  timing = interleave(
    {"product": lambda: product(a)}, num_turns=7, calls_per_turn=5
  )["product"]
  return 2 * size**3 / timing.low


def peak_memory() -> int:
  """Bytes that were in use at most: the device's, on CPU the process's."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if "peak_bytes_in_use" in stats:
    return int(stats["peak_bytes_in_use"])
  return memory.peak()


def environment() -> dict[str, str]:
  """Says what was measured on, for the rows of a table."""
  devices = jax.local_devices()
  return {
    "device": f"{len(devices)} x {devices[0].device_kind}",
    "jax": jax.__version__,
  }
