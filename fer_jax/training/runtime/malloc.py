"""What becomes of memory that this process has no more use for (glibc)."""

import ctypes
import functools
import time
from typing import Any

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_MUCH = 0.2  # seconds of compiling
# Seconds after a program's end in which XLA frees what it read and worked in.
_MOMENT = 1e-3
# Parameters of `mallopt`, of malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


@functools.cache
def settle() -> None:
  """Keeps memory for the next step, and gives back what compiling took.

  By default hundreds of megabytes go back to the system in each step and come
  anew, and empty, in the next: a tenth of the time of a step on CPUs, and
  more. What XLA needed for moments to compile is as much, and would be held
  as long as the process lives. To be called before JAX begins its threads.
  """
  library = _c_library()
  if library is None:
    return
  library.mallopt(_MMAP_MAX, 0)  # all of it from the heap,
  library.mallopt(_TRIM_THRESHOLD, -1)  # which never shrinks by itself,
  library.mallopt(_ARENA_MAX, 1)  # and which threads share

  def compiled(event: str, duration_secs: float, **kwargs: str | int) -> None:
    del kwargs
    if event == _COMPILED and duration_secs > _MUCH:
      library.malloc_trim(0)

  jax.monitoring.register_event_duration_secs_listener(compiled)


def let_go(results: Any) -> None:
  """Waits for results, and until what only they needed is free."""
  jax.block_until_ready(results)
  time.sleep(_MOMENT)


def give_back(results: Any) -> None:
  """Waits for results; what memory is free then goes back to the system."""
  let_go(results)
  library = _c_library()
  if library is not None:
    library.malloc_trim(0)


def _c_library() -> ctypes.CDLL | None:
  """The GNU C library; None where there is another."""
  try:
    library = ctypes.CDLL(None)
  except (OSError, TypeError):  # Windows has no such thing.
    return None
  return library if hasattr(library, "malloc_trim") else None
