"""What processes of a study do in tests: quickly, without JAX."""

import os
import pathlib
import signal
from typing import Any

from fer_jax.errors import Interrupted


def die(*_: Any) -> None:
  """Ends the process as the system does for want of memory."""
  os.kill(os.getpid(), signal.SIGKILL)


def wait(_: Any, workdir: str) -> None:
  """Waits for SIGTERM, as a training that then saves."""
  stopped = []
  signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
  pathlib.Path(workdir).touch()
  while not stopped:
    signal.pause()
  raise Interrupted("saved", signal.SIGTERM)


def run_out_of_time(*_: Any) -> None:
  """Ends as a training does whose `max_minutes` are over."""
  raise Interrupted("saved", signal.SIGALRM)
