"""Waits for what other threads and processes do, with a deadline."""

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
  """Waits until a condition is true.

  Raises:
    AssertionError: it is still false after `seconds`.
  """
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, f"still waiting after {seconds} s"
    time.sleep(0.01)
