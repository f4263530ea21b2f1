"""Compiles several programs in threads, and says what it waits for.

On a TPU they are compiled at the same time. Elsewhere they are compiled one
after the other, while the next is traced:

* On a CPU, XLA uses all cores for each, and with three at once ResNet-50 at
  batch 32 took 8 % more memory at its peak (1,702 instead of 1,577 MB), for 54
  instead of 60 seconds.
* On a GPU, XLA chooses kernels by timing them there. Programs that compile at
  the same time disturb these times (https://github.com/openxla/xla/pull/42415).
"""

import concurrent.futures
import functools
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import jax

from fer_jax.text_output import counted

_SAVED_EVENT = "/jax/compilation_cache/compile_time_saved_sec"
_POLL_SECONDS = 0.2
_TPU_THREADS = 16


class ParallelCompiler:
  """Compiles programs in threads; XLA releases Python's lock while it works.

  >>> with ParallelCompiler() as compiler:
  ...   double = compiler.add("double", jax.jit(lambda x: 2 * x).lower(1.0))
  >>> float(double.result()(3.0))
  6.0
  """

  def __init__(self, show: Callable[[str], None] = lambda text: None):
    """Starts without a program.

    Args:
      show: is called with what is being compiled and for how long, several
        times a second.
    """
    self._show = show
    num_threads = _TPU_THREADS if jax.default_backend() == "tpu" else 1
    self._pool = concurrent.futures.ThreadPoolExecutor(num_threads)
    self._futures: dict[str, concurrent.futures.Future[Any]] = {}
    self._seconds: dict[str, float] = {}
    self._started = time.monotonic()
    self._hits_before = _cache_hits().copy()

  def __enter__(self) -> "ParallelCompiler":
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self._pool.shutdown(wait=error is None, cancel_futures=True)

  def add(
    self, name: str, lowered: jax.stages.Lowered
  ) -> concurrent.futures.Future[jax.stages.Compiled]:
    """Starts to compile a program.

    Args:
      name: of the program, for people.
      lowered: the program, as `jax.jit(f).lower(...)` returns it.

    Returns:
      The compiled program, in the future.
    """

    def compile_timed() -> jax.stages.Compiled:
      started = time.monotonic()
      compiled = lowered.compile()
      self._seconds[name] = time.monotonic() - started
      return compiled

    self._futures[name] = self._pool.submit(compile_timed)
    self._show_status()
    return self._futures[name]

  def wait(self) -> None:
    """Waits until all programs are compiled."""
    pending = set(self._futures.values())
    while pending:
      self._show_status()
      _, pending = concurrent.futures.wait(pending, timeout=_POLL_SECONDS)

  def describe(self) -> str:
    """Returns one line about what was compiled, after `wait`."""
    total = time.monotonic() - self._started
    slowest_first = sorted(self._seconds.items(), key=lambda item: -item[1])
    parts = ", ".join(f"{name} {took:.1f} s" for name, took in slowest_first)
    line = f"compiled in {total:.1f} s ({parts})"
    saved = _cache_hits()[len(self._hits_before) :]
    if saved:
      line += (
        f"; {counted(len(saved), 'program')} from the cache,"
        f" {max(sum(saved), 0):.1f} s saved"
      )
    return line

  def _show_status(self) -> None:
    names = [
      name for name, future in self._futures.items() if not future.done()
    ]
    seconds = time.monotonic() - self._started
    self._show(f"compiling {', '.join(names)}: {seconds:.0f} s")


@functools.cache
def _cache_hits() -> list[float]:
  """Returns the seconds saved by each program read from JAX's cache so far."""
  saved: list[float] = []

  def note(event: str, duration_secs: float, **kwargs: str | int) -> None:
    del kwargs
    if event == _SAVED_EVENT:
      saved.append(duration_secs)

  jax.monitoring.register_event_duration_secs_listener(note)
  return saved
