"""How much memory this process has taken; knows nothing of any library."""

import contextlib
import resource
import sys
from pathlib import Path


def reset_peak() -> None:
  """Has `peak` start anew, where the system can (Linux)."""
  with contextlib.suppress(OSError):
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
  """Bytes of this process that were in memory at most."""
  kilobytes = _status("VmHWM")
  if kilobytes is None:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":
      return kilobytes
  return 1024 * kilobytes


def now() -> int:
  """Bytes of this process that are in memory, or have been at most."""
  kilobytes = _status("VmRSS")
  return peak() if kilobytes is None else 1024 * kilobytes


def _status(name: str) -> int | None:
  """A line of Linux's account of this process, kilobytes."""
  with contextlib.suppress(OSError):
    for line in Path("/proc/self/status").read_text().splitlines():
      if line.startswith(f"{name}:"):
        return int(line.split()[1])
  return None
