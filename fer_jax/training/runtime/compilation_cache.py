"""The cache of compiled programs, and what it saved."""

import os
import pathlib

import jax

from fer_jax.training.runtime import malloc

_SAVED = "/jax/compilation_cache/compile_time_saved_sec"
_COMPILED = "/jax/core/compile/backend_compile_duration"


class CompileTimes:
  """Seconds spent compiling since this was made, and seconds saved.

  Attributes:
    spent: in XLA, reading the cache included.
    saved: that the cached programs took to compile when they were made, less
      the time of reading them.
    hits: programs read from the cache.
  """

  def __init__(self) -> None:
    self.spent = 0.0
    self.saved = 0.0
    self.hits = 0
    jax.monitoring.register_event_duration_secs_listener(self._note)

  def _note(
    self, event: str, duration_secs: float, **kwargs: str | int
  ) -> None:
    del kwargs
    if event == _COMPILED:
      self.spent += duration_secs
    elif event == _SAVED:
      self.hits += 1
      self.saved += duration_secs

  def describe(self) -> str:
    """One line for people."""
    line = f"compiled in {self.spent:.1f} s"
    if self.hits:
      line += (
        f" ({self.hits} programs from the cache, {max(self.saved, 0):.1f} s"
        " saved)"
      )
    return line


def use_cache(directory: str) -> pathlib.Path | None:
  """Keeps compiled programs between runs, but not the memory they took.

  Args:
    directory: where; "" is JAX_COMPILATION_CACHE_DIR if that is set, and else
      `fer_jax/compiled` in the user's cache folder (XDG_CACHE_HOME, or
      ~/.cache); "off" keeps none.

  Returns:
    The directory, or None.
  """
  malloc.settle()
  if directory == "off":
    jax.config.update("jax_enable_compilation_cache", False)
    return None
  directory = directory or os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
  if directory:
    path = pathlib.Path(directory).expanduser()
  else:
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    path = pathlib.Path(cache) / "fer_jax" / "compiled"
  jax.config.update("jax_enable_compilation_cache", True)
  jax.config.update("jax_compilation_cache_dir", str(path))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
  return path
