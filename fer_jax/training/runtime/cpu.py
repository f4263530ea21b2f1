"""The CPU backend at full speed: memory that stays, and a step of two programs.

A process calls `configure_malloc` once, before JAX starts its threads; the
training loop uses `TwoProgramStep`. Neither changes a number. They deal with
three properties of XLA's CPU backend and glibc's malloc, each of which costs a
tenth of a step or hundreds of megabytes:

1. glibc returns the hundreds of megabytes of a step's arrays to the system when
   they are freed, and the next step faults them in again, zeroed.
   `configure_malloc` makes it keep them. What compiling took is then returned
   explicitly (`trim_malloc`), or it would stay with the process.
2. If gradients and update are one program, XLA fuses the assembly of the
   gradients into the optimizer's update and computes it several times.
   `TwoProgramStep` calls them as two programs.
3. XLA frees the arrays that a program read about a millisecond after its
   results are ready. Of a large model, the next step would hold a second copy
   of the gradients by then. `block_until_freed` waits for it.

Other C libraries ignore malloc's part; other backends do not use this module.
"""

import ctypes
import functools
import time
from collections.abc import Callable
from typing import Any

import jax

Tree = Any  # a tree of arrays

_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
_LONG_COMPILATION = 0.2  # seconds after which memory is worth returning
_FREE_DELAY = 1e-3  # seconds until XLA has freed a finished program's arrays
# Parameters above which a second copy of the gradients matters, and a wait of
# a millisecond does not.
_MANY_PARAMETERS = 1 << 22
# Parameters of `mallopt`, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


@functools.cache
def configure_malloc() -> None:
  """Keeps freed memory for the next step, except for what compiling took.

  Must be called before JAX starts its threads; further calls do nothing.
  """
  library = _c_library()
  if library is None:
    return
  library.mallopt(_MMAP_MAX, 0)  # Large arrays come from the heap too,
  library.mallopt(_TRIM_THRESHOLD, -1)  # which never shrinks by itself,
  library.mallopt(_ARENA_MAX, 1)  # and which all threads share.

  def trim_after(event: str, duration_secs: float, **kwargs: str | int) -> None:
    del kwargs
    if event == _COMPILE_EVENT and duration_secs > _LONG_COMPILATION:
      library.malloc_trim(0)

  jax.monitoring.register_event_duration_secs_listener(trim_after)


def block_until_freed(results: Any) -> None:
  """Waits for results, and until what was needed only for them is freed."""
  jax.block_until_ready(results)
  time.sleep(_FREE_DELAY)


def trim_malloc(results: Any) -> None:
  """Waits for results, then returns free memory to the system."""
  block_until_freed(results)
  library = _c_library()
  if library is not None:
    library.malloc_trim(0)


class TwoProgramStep:
  """A training step that runs its gradients and its update as two programs.

  Args:
    gradients: `(state, metrics, data, batch, inputs) -> (gradients,
      batch_stats, metrics)`, compiled.
    update: `(state, gradients, batch_stats, inputs) -> state`, compiled; the
      state is donated.
  """

  def __init__(
    self, gradients: Callable[..., Tree], update: Callable[..., Tree]
  ):
    self._gradients = gradients
    self._update = update
    self._is_first_call = True
    self._waits = False

  def __call__(
    self, state: Tree, metrics: Tree, data: Tree, batch: Tree, inputs: Tree
  ) -> tuple[Tree, Tree]:
    """Trains on one batch; returns the new state and metrics."""
    if self._waits:
      block_until_freed(state.step)
    gradients, batch_stats, metrics = self._gradients(
      state, metrics, data, batch, inputs
    )
    if not self._is_first_call:
      return self._update(state, gradients, batch_stats, inputs), metrics
    # Compiling, if it happened in these calls, leaves holes in the heap: after
    # a trim the arrays of later steps are placed side by side.
    self._is_first_call = False
    trim_malloc(gradients)
    state = self._update(state, gradients, batch_stats, inputs)
    del gradients
    trim_malloc(state)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    self._waits = num_params > _MANY_PARAMETERS
    return state, metrics


def _c_library() -> ctypes.CDLL | None:
  """Returns the GNU C library; None if the process uses another one."""
  try:
    library = ctypes.CDLL(None)
  except (OSError, TypeError):  # Windows
    return None
  return library if hasattr(library, "malloc_trim") else None
