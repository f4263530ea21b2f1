"""Locks of files, which end with the process that has them, however it ends."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

try:
  import fcntl
except ImportError:  # Windows
  fcntl = None  # type: ignore[assignment]


HAS_LOCKS = fcntl is not None


class Lock:
  """A lock that this process may have.

  Where the file system has no locks, everyone has it.
  """

  def __init__(self, path: pathlib.Path):
    """Has nothing yet.

    Args:
      path: of the lock's file, made if absent.
    """
    self._path = path
    self._file: int | None = None

  def take(self, wait: bool) -> bool:
    """Takes the lock.

    Args:
      wait: for whoever has it; otherwise it is not taken then.

    Returns:
      Whether it was taken.
    """
    file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
    if fcntl is not None:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
      except BlockingIOError:
        os.close(file)
        return False
      except OSError:
        pass  # A file system without locks.
    self._file = file
    return True

  def release(self) -> None:
    """Gives the lock back."""
    if self._file is not None:
      os.close(self._file)
      self._file = None


@contextlib.contextmanager
def waited_for(path: pathlib.Path) -> Iterator[None]:
  """Has the lock of a file while entered."""
  lock = Lock(path)
  lock.take(wait=True)
  try:
    yield
  finally:
    lock.release()
