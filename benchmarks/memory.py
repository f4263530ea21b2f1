"""Memory of this process, measured independently of any library."""

import contextlib
import resource
import sys
from pathlib import Path


def reset_peak() -> None:
  """Resets `peak`, on Linux."""
  with contextlib.suppress(OSError):
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
  """Returns the peak resident memory of this process, in bytes."""
  kilobytes = _status("VmHWM")
  if kilobytes is None:
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":
      return kilobytes
  return 1024 * kilobytes


def now() -> int:
  """Returns the resident memory in bytes, or the peak outside of Linux."""
  kilobytes = _status("VmRSS")
  return peak() if kilobytes is None else 1024 * kilobytes


def anonymous() -> int:
  """Returns the resident memory without mapped files, in bytes.

  Pages of files that are mapped into memory are the kernel's to drop; outside
  of Linux they count.
  """
  kilobytes = _status("RssAnon")
  return now() if kilobytes is None else 1024 * kilobytes


def _status(name: str) -> int | None:
  """Returns a value of /proc/self/status, in kilobytes."""
  with contextlib.suppress(OSError):
    for line in Path("/proc/self/status").read_text().splitlines():
      if line.startswith(f"{name}:"):
        return int(line.split()[1])
  return None
