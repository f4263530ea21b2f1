"""What JAX's C++ libraries write to stdout and stderr, line by line.

They write to the process's own streams, past Python. When a process of a
distributed run is lost, or none can be reached, JAX's client logs a fatal error
with a stack trace there and aborts the process. `NativeLog` reads these lines
first: notes of the libraries are left out, and a fatal one is passed to the
caller, who has some seconds to end the process with a message of its own.
"""

import ctypes
import faulthandler
import os
import re
import signal
import sys
import threading
from collections.abc import Callable
from types import TracebackType

from fer_jax.text_output import SafeStream

# How JAX's client announces that it will abort the process.
_FATAL = re.compile(r"^F\d{4} .*JAX distributed service detected fatal errors")
# Notes about connections, and the trace below a fatal line.
_NOISE = re.compile(
  r"^\[Gloo\] |^[IWE]\d{4} .*(coordination_service|preemption_|add_port\.cc)"
  r"|^\*\*\* Check failure stack trace|^    @ |^Additional GRPC error"
  r"|^:UNKNOWN:Error received|^RPC: |^The tasks have crashed|^\d+$|^$"
)


class NativeLog:
  """Reads the process's stdout and stderr while entered, and after an error.

  Python's own `sys.stdout` and `sys.stderr` keep the terminal or file that they
  had; what libraries write past Python is forwarded to stderr if it matters.
  """

  def __init__(
    self, prefix: Callable[[], str], on_fatal: Callable[[str], None]
  ):
    """Redirects nothing yet.

    Args:
      prefix: returns what stands before a forwarded line.
      on_fatal: is called in a thread with the line that announces an abort.
    """
    self._prefix = prefix
    self._on_fatal = on_fatal
    self._python = sys.stdout, sys.stderr
    self._originals: list[int] = []

  def __enter__(self) -> "NativeLog":
    for stream in self._python:
      stream.flush()
    self._originals = [os.dup(1), os.dup(2)]
    streams = [
      open(fd, "w", buffering=1, closefd=False) for fd in self._originals
    ]
    self._stderr = streams[1]
    sys.stdout, sys.stderr = streams
    read, write = os.pipe()
    for fd in (1, 2):
      os.dup2(write, fd)
    os.close(write)
    if faulthandler.is_enabled():
      faulthandler.enable(self._stderr)
    _delay_aborts()
    self._thread = threading.Thread(
      target=self._forward, args=(read,), daemon=True, name="native log"
    )
    self._thread.start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    for stream in (sys.stdout, sys.stderr):
      SafeStream(stream).flush()
    if error is not None:
      return  # The process ends, and libraries may say so.
    sys.stdout, sys.stderr = self._python
    for fd, original in zip((1, 2), self._originals, strict=True):
      os.dup2(original, fd)  # Closes an end that can be written to.
    self._thread.join(timeout=1)

  def _forward(self, read: int) -> None:
    stream = SafeStream(self._stderr)
    with open(read, errors="replace") as lines:
      for line in lines:
        if _FATAL.search(line):
          self._on_fatal(line)
        elif not _NOISE.search(line):
          stream.write(self._prefix() + line)
          stream.flush()


def _delay_aborts() -> None:
  """Makes a thread that aborts the process sleep first, for 6 seconds.

  A handler in Python would not run in time. That of the C library is called
  with the signal's number, which `sleep` takes as seconds.
  """
  library = ctypes.CDLL(None)
  library.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
  library.signal.restype = ctypes.c_void_p
  library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))
