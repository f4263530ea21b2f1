"""Temporary folders that do not stay for long after their process was killed.

The next process that makes such a folder removes what killed ones left behind:
a lock beside each, which the system releases with the process, says whether it
is in use.
"""

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock

_PREFIX = "fer_jax-object-store-"
_KEEP = "KEEP"


@contextlib.contextmanager
def folder() -> Iterator[Path]:
  """Yields a new folder in the system's temporary folder (TMPDIR).

  It is removed at the end of the block.
  """
  root = Path(tempfile.gettempdir())
  _remove_left_over(root)
  made = root / f"{_PREFIX}{secrets.token_hex(8)}"
  lock = filelock.FileLock(f"{made}.lock")
  with lock:
    made.mkdir(mode=0o700)
    try:
      yield made
    finally:
      if not (made / _KEEP).exists():
        shutil.rmtree(made, ignore_errors=True)
      Path(lock.lock_file).unlink(missing_ok=True)


@contextlib.contextmanager
def kept(made: Path) -> Iterator[None]:
  """Makes a folder stay if the block fails or the process is killed in it."""
  (made / _KEEP).touch()
  yield
  (made / _KEEP).unlink()


def _remove_left_over(root: Path) -> None:
  for path in root.glob(f"{_PREFIX}*.lock"):
    left = path.with_suffix("")
    with (
      contextlib.suppress(OSError, filelock.Timeout),
      filelock.FileLock(path, timeout=0),
    ):
      if not (left / _KEEP).exists():
        shutil.rmtree(left, ignore_errors=True)
      path.unlink(missing_ok=True)
