"""Signals and time limits: training stops after the current step and saves."""

import contextlib
import math
import signal
import sys
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from fer_jax.errors import Interrupted
from fer_jax.text_output import SafeStream
from fer_jax.training.runtime.process_group import ProcessGroup

__all__ = ["Interrupted", "StopNow", "StopRequest"]
_TIME_LIMIT = 14  # SIGALRM, which Windows lacks


def deadline_after(max_minutes: float) -> float:
  """Returns when a time limit that begins now ends, as `time.monotonic`.

  Args:
    max_minutes: as in configurations; 0: no limit, which ends at infinity.
  """
  return time.monotonic() + 60 * max_minutes if max_minutes else math.inf


def check_deadline(deadline: float) -> None:
  """Raises Interrupted if it is too late to start another run.

  Args:
    deadline: as `deadline_after` returns it.
  """
  if time.monotonic() >= deadline:
    raise Interrupted(
      "the time limit is reached; saved: rerun the command to resume",
      _TIME_LIMIT,
    )


class StopNow(BaseException):
  """A signal was received while nothing had to be finished first.

  Not an Exception: JAX only warns of these while it reads its cache.
  """


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

  def __init__(
    self, deadline: float = math.inf, group: ProcessGroup | None = None
  ) -> None:
    """Notes nothing before it is entered.

    Args:
      deadline: when to stop as at a signal, as `deadline_after` returns it.
      group: the processes that stop together; None for this one alone.
    """
    self._group = group if group and group.count > 1 else None
    self.signal_number: int | None = None
    self._before: dict[int, Any] = {}
    self._is_immediate = False
    self._deadline = deadline
    if self._group:
      self._group.stop.watch(lambda: self._own_cause if self else None)

  def __bool__(self) -> bool:
    """Returns whether to stop."""
    return self.signal_number is not None or self._is_too_late()

  def agreed(self) -> bool:
    """Returns whether to stop here, in all processes of the group.

    Each of them must call it at the same points of the program.
    """
    if self._group is None:
      return bool(self)
    return self._group.agree_to_stop()

  def signalled(self) -> bool:
    """Returns whether to stop here at a signal, as `agreed`.

    The time limit of a process alone lets an evaluation end, or a run whose
    evaluation takes longer would never get past it.
    """
    if self._group is None:
      return self.signal_number is not None
    return self._group.agree_to_stop()

  @property
  def cause(self) -> int:
    """The signal that was received; SIGALRM (14) for the time limit."""
    agreed = self._group.stop.cause if self._group else 0
    return agreed or self._own_cause

  @property
  def _own_cause(self) -> int:
    return _TIME_LIMIT if self.signal_number is None else self.signal_number

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
    """Raises StopNow if a signal was received, in a group if all stop here."""
    if self._group is None:
      stops = self.signal_number is not None
    else:
      stops = self._group.stop.is_reached()
    if stops:
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
    return time.monotonic() >= self._deadline

  def _note(self, number: int, frame: FrameType | None) -> None:
    if self.signal_number is not None and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.signal_number = number
    if self._is_immediate and self._group is None:
      raise StopNow
    again = "; again to stop immediately" if number == signal.SIGINT else ""
    name = signal.Signals(number).name
    if self._group:
      name += f" in process {self._group.index} of {self._group.count}"
    # Of `2>&1 | tee log`, Ctrl-C has also ended tee.
    message = f"\n{name}: stopping after this step{again}\n"
    stream = SafeStream(sys.stderr)
    stream.write(message)
    stream.flush()
