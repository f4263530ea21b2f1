"""Atomic file writing.

`atomic_write` is for files in places of our own (workdirs, caches). Files
written beside the user's go through `fer_jax.output_folder`, which also never
overwrites an input or a file that the package did not make.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from fer_jax.errors import UserError
from fer_jax.text_output import printable

_temporary_caches: list[tempfile.TemporaryDirectory[str]] = []
_LONGEST_NAME = 200  # bytes of a temporary file's name; systems allow 255


@contextlib.contextmanager
def atomic_write(
  path: str | os.PathLike[str],
  *,
  parents: bool = False,
  flush: bool = True,
  before_rename: Callable[[Path], None] | None = None,
) -> Iterator[Path]:
  """Yields a temporary file to write, which replaces `path` at the end.

  The temporary file lies in the same folder and has the same suffix. It is
  flushed to the disk and renamed when the block ends, and removed when the
  block raises, so that `path` is always complete: the old content or the new.
  A symbolic link is followed, and an existing file keeps its permissions.

  Args:
    path: the file to write.
    parents: whether to create the folders above it.
    flush: whether to wait until it is on the disk, so that it also survives a
      crash of the system; many files that can be made again need not.
    before_rename: called with the complete temporary file, whose size and time
      the rename keeps.

  Raises:
    OSError: it cannot be written; `filename` is `path`.

  >>> import tempfile
  >>> folder = Path(tempfile.mkdtemp())
  >>> with atomic_write(folder / "scores.json") as temporary:
  ...   _ = temporary.write_text("{}")
  >>> [file.name for file in folder.iterdir()]
  ['scores.json']
  """
  target = Path(os.path.realpath(path))
  temporary = target.with_name(_temporary_name(target))
  try:
    if parents:
      target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
      raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    yield temporary
    with contextlib.suppress(FileNotFoundError):
      os.chmod(temporary, target.stat().st_mode & 0o7777)
    if flush:
      _flush(temporary)
    if before_rename:
      before_rename(temporary)
    os.replace(temporary, target)
    if flush:
      with contextlib.suppress(OSError):  # Not all systems flush folders.
        _flush(target.parent)
  except OSError as e:
    if e.filename in (None, str(temporary), temporary):
      e.filename = str(path)
    raise
  finally:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
  """Raises an error if nothing can be written to a folder.

  Args:
    folder: need not exist.

  Raises:
    UserError: it is a file, or it or the folder that it would be created in
      may not be written.
  """
  places = (folder, *folder.parents)
  above = next(place for place in places if os.path.lexists(place))
  if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
    raise UserError(
      f"cannot write {printable(folder)}: {printable(above)} is not a folder"
      " that may be written; give another folder"
    )


def sha256(path: str | os.PathLike[str]) -> str:
  """Returns the SHA-256 of a file, in hexadecimal."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
  """Returns the package's folder in the user's cache folder.

  It is `fer_jax` in XDG_CACHE_HOME or ~/.cache. For a user without a home, as
  in containers, it is a temporary folder of this process.
  """
  cache = os.environ.get("XDG_CACHE_HOME")
  try:
    return Path(cache or Path.home() / ".cache") / "fer_jax"
  except RuntimeError:  # HOME is not set, and the system has no such user.
    if not _temporary_caches:
      folder = tempfile.TemporaryDirectory(
        prefix="fer_jax-", ignore_cleanup_errors=True
      )
      _temporary_caches.append(folder)
    return Path(_temporary_caches[0].name)


def data_folder() -> Path:
  """Returns the folder of prepared data and releases, unless one is given.

  It is tensorflow-datasets': TFDS_DATA_DIR, or `tensorflow_datasets` in the
  user's home. For a user without a home it is in `cache_folder()`.
  """
  try:
    given = os.environ.get("TFDS_DATA_DIR")
    return Path(given or "~/tensorflow_datasets").expanduser()
  except RuntimeError:  # As in `cache_folder`.
    return cache_folder() / "tensorflow_datasets"


def unused_path(path: Path) -> Path:
  """Returns a path, numbered if it exists."""
  number, unused = 1, path
  while unused.exists():
    number += 1
    unused = path.with_name(f"{path.name}-{number}")
  return unused


def _temporary_name(target: Path) -> str:
  suffix = target.suffix if len(os.fsencode(target.suffix)) < 32 else ""
  stem = os.fsdecode(os.fsencode(target.name)[:_LONGEST_NAME])
  return f".{stem}.{secrets.token_hex(4)}{suffix}"


def _flush(path: Path) -> None:
  """Writes what the system still holds in memory to the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
