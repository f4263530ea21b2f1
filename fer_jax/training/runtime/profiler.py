"""A profiler trace of a few steps."""

import pathlib
from typing import Any

import jax


class Trace:
  """Records the 11th to 15th call of this process, as TensorBoard reads it."""

  FIRST, LAST = 10, 15

  def __init__(self, directory: pathlib.Path, enabled: bool):
    """Records nothing yet.

    Args:
      directory: where the trace is written.
      enabled: whether anything is recorded at all.
    """
    self._directory = directory
    self._enabled = enabled
    self._calls = 0
    self._running = False

  def step(self, state: Any) -> None:
    """Starts or ends the trace; called before every training call.

    Both wait for the devices, which are behind: the trace holds these calls
    and no others.

    Args:
      state: what the last call returned.
    """
    if self._calls == self.FIRST and self._enabled:
      jax.block_until_ready(state)
      jax.profiler.start_trace(self._directory)
      self._running = True
    if self._calls == self.LAST and self._running:
      jax.block_until_ready(state)
      self.close()
    self._calls += 1

  @property
  def is_missing(self) -> bool:
    """Whether a trace was asked for and too few calls were made."""
    return self._enabled and self._calls <= self.FIRST

  def close(self) -> None:
    """Ends the trace, if it is still being recorded."""
    if self._running:
      jax.profiler.stop_trace()
      self._running = False
