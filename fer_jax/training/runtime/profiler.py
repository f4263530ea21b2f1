"""A profiler trace of some steps."""

import pathlib

import jax


class Trace:
  """Writes steps 10 to 15 of this process, for TensorBoard and Perfetto."""

  FIRST, LAST = 10, 15

  def __init__(self, directory: pathlib.Path):
    self._directory = directory
    self._calls = 0
    self._running = False

  def step(self) -> None:
    """Is told before every call; starts and ends the trace."""
    if self._calls == self.FIRST:
      jax.profiler.start_trace(self._directory)
      self._running = True
    if self._calls == self.LAST:
      self.close()
    self._calls += 1

  def close(self) -> None:
    """Ends the trace of a run that was shorter."""
    if self._running:
      jax.profiler.stop_trace()
      self._running = False
