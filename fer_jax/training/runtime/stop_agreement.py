"""How processes that train together agree on where to stop, without waiting.

Every process counts the points of the program at which it may stop, for example
after each training step. If one wants to stop, each of them holds at its next
point and tells the others its count; all of them stop at the highest one. A
thread tells it, since the program may be waiting for the others in a step that
they have not started.
"""

import threading
from collections.abc import Callable, Mapping

_DEFAULT_CAUSE = 15  # SIGTERM


class StopAgreement:
  """The part of one process.

  Attributes:
    cause: number of the signal to stop for; 0 before all agreed.
  """

  def __init__(self, tell: Callable[[str], None]):
    """Wants nothing yet.

    Args:
      tell: sends a message to all processes, once.
    """
    self.cause = 0
    self._tell = tell
    self._wanted: Callable[[], int | None] = lambda: None
    self._changed = threading.Condition()
    self._points = 0  # passed
    self._holds = False
    self._stop_point: int | None = None

  def watch(self, wanted: Callable[[], int | None]) -> None:
    """Sets what `update` asks whether this process wants to stop.

    Args:
      wanted: returns the cause as the number of a signal, or None.
    """
    self._wanted = wanted

  def pass_point(self, wait: Callable[[], None]) -> bool:
    """Returns whether all processes stop at this point of the program.

    Each process must call it at the same points.

    Args:
      wait: is called several times a second while the others are waited for.
    """
    with self._changed:
      while self._holds and self._stop_point is None:
        self._changed.wait(0.1)  # Returns to Python, for signals.
        wait()
      if self.is_reached():
        return True
      self._points += 1
      return False

  def is_reached(self) -> bool:
    """Returns whether the next `pass_point` will return True."""
    return self._stop_point is not None and self._points >= self._stop_point

  def update(self, told: Mapping[int, str], count: int) -> None:
    """Tells the others if there is a stop to agree on; called by a thread.

    Args:
      told: process -> what it told.
      count: number of processes.
    """
    cause = self._wanted()
    if (told or cause) and not self._holds:
      with self._changed:
        self._holds = True
      self._tell(f"{self._points} {cause or 0}")
    if len(told) < count or self._stop_point is not None:
      return
    points, causes = zip(
      *(map(int, told[index].split()) for index in sorted(told)), strict=True
    )
    with self._changed:
      self.cause = next(filter(None, causes), _DEFAULT_CAUSE)
      self._stop_point = max(points)
      self._changed.notify_all()
