"""Signals and time limits: training stops after the current step and saves."""

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from fer_jax.errors import Interrupted
from fer_jax.text_output import SafeStream

__all__ = ["Interrupted", "StopNow", "StopRequest"]


class StopNow(Exception):
  """A signal was received while nothing had to be finished first."""


class StopRequest:
  """Notes the first signal while entered; a second Ctrl-C stops immediately.

  A hangup (SIGHUP, the terminal was closed) is noted too, unless the process
  was started to ignore it (nohup).

  Attributes:
    signal_number: the signal that was received; None before.
  """

  SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)  # Windows has no SIGHUP.
  )

  def __init__(self, max_minutes: float = 0.0) -> None:
    """Notes nothing before it is entered.

    Args:
      max_minutes: time after which to stop as at a signal; 0: no limit.
    """
    self.signal_number: int | None = None
    self._before: dict[int, Any] = {}
    self._is_immediate = False
    self._deadline = time.monotonic() + 60 * max_minutes
    self._has_deadline = max_minutes > 0

  def __bool__(self) -> bool:
    """Returns whether to stop."""
    return self.signal_number is not None or self._is_too_late()

  @property
  def cause(self) -> int:
    """The signal that was received; SIGALRM (14) for the time limit."""
    return 14 if self.signal_number is None else self.signal_number

  @contextlib.contextmanager
  def immediate(self) -> Iterator[None]:
    """Raises StopNow at a signal, inside of what may be left at any point."""
    self._is_immediate = True
    try:
      self.check()
      yield
    finally:
      self._is_immediate = False

  def check(self) -> None:
    """Raises StopNow if a signal was received."""
    if self.signal_number is not None:
      raise StopNow

  def __enter__(self) -> "StopRequest":
    try:
      for number in self.SIGNALS:
        ignored = signal.getsignal(number) == signal.SIG_IGN
        if number == signal.SIGINT or not ignored:
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

  def _is_too_late(self) -> bool:
    return self._has_deadline and time.monotonic() >= self._deadline

  def _note(self, number: int, frame: FrameType | None) -> None:
    if self.signal_number is not None and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.signal_number = number
    if self._is_immediate:
      raise StopNow
    again = "; again to stop immediately" if number == signal.SIGINT else ""
    name = signal.Signals(number).name
    # Of `2>&1 | tee log`, Ctrl-C has also ended tee.
    message = f"\n{name}: stopping after this step{again}\n"
    stream = SafeStream(sys.stderr)
    stream.write(message)
    stream.flush()
