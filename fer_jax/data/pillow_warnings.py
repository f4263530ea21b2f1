"""Hides Python warnings while images are read, in any number of threads."""

import contextlib
import threading
import warnings
from collections.abc import Iterator

_lock = threading.Lock()
_readers = 0
_filters: warnings.catch_warnings | None = None


@contextlib.contextmanager
def pillow_warnings_hidden() -> Iterator[None]:
  """Ignores warnings about odd metadata while any thread is in here.

  `warnings.catch_warnings` changes filters that all threads share: each thread
  restoring its own would leave those of another.
  """
  global _readers, _filters
  with _lock:
    _readers += 1
    if _readers == 1:
      _filters = warnings.catch_warnings()
      _filters.__enter__()
      warnings.simplefilter("ignore")
  try:
    yield
  finally:
    with _lock:
      _readers -= 1
      if not _readers and _filters is not None:
        _filters.__exit__(None, None, None)
