"""Ctrl-C and SIGTERM: training stops after the current step and saves."""

import signal
import sys
from types import FrameType, TracebackType
from typing import Any

from fer_jax.errors import Interrupted

__all__ = ["Interrupted", "StopRequest"]


class StopRequest:
  """Notes the first signal while entered; a second Ctrl-C stops immediately.

  Attributes:
    signal_number: the signal that was received; None before.
  """

  SIGNALS = (signal.SIGINT, signal.SIGTERM)

  def __init__(self) -> None:
    self.signal_number: int | None = None
    self._before: dict[int, Any] = {}

  def __enter__(self) -> "StopRequest":
    try:
      for number in self.SIGNALS:
        self._before[number] = signal.signal(number, self._note)
    except ValueError:
      pass  # Not the main thread, such as a notebook's worker.
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame: FrameType | None) -> None:
    if self.signal_number is not None and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.signal_number = number
    again = "; again to stop immediately" if number == signal.SIGINT else ""
    name = signal.Signals(number).name
    print(f"\n{name}: stopping after this step{again}", file=sys.stderr)
