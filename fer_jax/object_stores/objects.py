"""The objects of a store below one URL, read and written as files.

fsspec does the work (s3fs for s3://, gcsfs for gs://), which is also what
`etils.epath` uses; epath itself hands s3:// to TensorFlow where that is
installed, which cannot read it. Credentials, region and endpoint are those of
the environment, as for the store's own command-line tools.

An object is replaced whole or not at all, and a listing shows what was written
before: both S3 and Google Cloud Storage guarantee that. There is no rename and
no appending.
"""

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import fsspec

from fer_jax.errors import UserError, one_line
from fer_jax.object_stores.urls import PathLike, is_url, to_path

_PACKAGES = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs")}
_NUM_THREADS = 16  # transfers at a time
_OPTIONS: dict[str, dict[str, Any]] = {
  "s3": {
    "config_kwargs": {"connect_timeout": 10, "retries": {"max_attempts": 3}}
  },
  "gs": {},
}
# Named by botocore and gcsfs -> what to do.
_ADVICE = {
  "NoCredentialsError": "no credentials: set AWS_ACCESS_KEY_ID and"
  " AWS_SECRET_ACCESS_KEY, or run `aws configure`",
  "DefaultCredentialsError": "no credentials: run `gcloud auth"
  " application-default login`",
  "FileNotFoundError": "check the name of the bucket",
  "PermissionError": "check the credentials and their permissions",
}
_CONNECTION = "check the network and AWS_ENDPOINT_URL"


class StoreError(UserError):
  """An object store that cannot be used; the message says why."""


class ObjectFolder:
  """The objects below a URL, by their names relative to it.

  Attributes:
    url: without a slash at the end.
  """

  def __init__(self, url: PathLike):
    """Names the folder, which need not exist; nothing is read.

    Args:
      url: such as `s3://bucket/run`.

    Raises:
      StoreError: the package for this kind of store is not installed.
    """
    self.url = str(to_path(url)).rstrip("/")
    self._files = _file_system(self.url)

  def __truediv__(self, name: str) -> "ObjectFolder":
    return ObjectFolder(f"{self.url}/{name}")

  def list(self) -> dict[str, int]:
    """Returns the bytes of all objects, also in folders below, by name.

    Raises:
      StoreError: the bucket does not exist or cannot be read.
    """
    with self._explained("read"):
      found = self._files.find(self.url, detail=True, refresh=True)
    start = len(self.url.partition("://")[2]) + 1
    return {
      name.lstrip("/")[start:]: int(info.get("size") or 0)
      for name, info in found.items()
      if name.lstrip("/")[start:]
    }

  def read(self, name: str) -> bytes | None:
    """Returns an object's content; None if there is none.

    Raises:
      StoreError: it cannot be read.
    """
    with self._explained("read"):
      try:
        return self._files.cat_file(f"{self.url}/{name}")
      except FileNotFoundError:
        return None

  def write(self, name: str, content: bytes) -> None:
    """Writes an object.

    Raises:
      StoreError: it cannot be written.
    """
    with self._explained("write"):
      self._files.pipe_file(f"{self.url}/{name}", content)

  def download(self, names: Iterable[str], folder: Path) -> None:
    """Copies objects to a folder of this machine.

    Args:
      names: of the objects.
      folder: subfolders are created.

    Raises:
      FileNotFoundError: an object was deleted meanwhile.
      StoreError: one cannot be read, or its name leads out of the folder.
    """
    names = list(names)
    for name in names:
      if not _is_within_folder(name):
        raise StoreError(
          f"cannot download {self.url}/{name}: its name leads out of the"
          " folder; rename or delete that object"
        )
    for name in names:
      (folder / name).parent.mkdir(parents=True, exist_ok=True)

    def get(name: str) -> None:
      self._files.get_file(f"{self.url}/{name}", str(folder / name))

    with self._explained("read", missing_ok=True):
      _in_threads(get, names)

  def upload(self, names: Iterable[str], folder: Path) -> None:
    """Copies files of this machine to objects.

    Args:
      names: of the files, relative to `folder`, and of the objects.
      folder: where the files are.

    Raises:
      StoreError: one cannot be written.
    """

    def put(name: str) -> None:
      self._files.put_file(str(folder / name), f"{self.url}/{name}")

    with self._explained("write"):
      _in_threads(put, list(names))

  def delete(self, names: Iterable[str]) -> None:
    """Deletes objects; there may be none of that name.

    Raises:
      StoreError: they cannot be deleted.
    """

    def remove(name: str) -> None:
      with contextlib.suppress(FileNotFoundError):
        self._files.rm_file(f"{self.url}/{name}")

    with self._explained("write"):
      _in_threads(remove, list(names))

  @contextlib.contextmanager
  def _explained(self, verb: str, missing_ok: bool = False) -> Iterator[None]:
    """Turns the many errors of stores' libraries into a StoreError."""
    try:
      yield
    except (UserError, MemoryError):
      raise
    except Exception as e:
      if missing_ok and isinstance(e, FileNotFoundError):
        raise
      kinds = [kind.__name__ for kind in type(e).__mro__]
      advice = next((_ADVICE[k] for k in kinds if k in _ADVICE), "")
      if not advice and any("Connect" in k or "Timeout" in k for k in kinds):
        advice = _CONNECTION
      text = f"cannot {verb} {self.url}: {one_line(e)}"
      raise StoreError(f"{text}; {advice}" if advice else text) from e


def _is_within_folder(name: str) -> bool:
  """Returns whether an object's name, as a path, stays below its folder.

  Anyone who may write to a bucket chooses the names of objects there.

  >>> [_is_within_folder(n) for n in ("a/b", "../b", "a/../../b", "/b")]
  [True, False, False, False]
  """
  kinds = (PurePosixPath(name), PureWindowsPath(name))
  return not any(path.anchor or ".." in path.parts for path in kinds)


def read_file(path: Path) -> bytes | None:
  """Returns the content of a file or of an object; None if there is none.

  Args:
    path: as `urls.to_path` returns it.

  Raises:
    OSError: the file cannot be read.
    StoreError: the object cannot be read.
  """
  if is_url(path):
    return ObjectFolder(path.parent).read(path.name)
  try:
    return path.read_bytes()
  except FileNotFoundError:
    return None


def _in_threads(fn: Any, items: list[str]) -> None:
  with ThreadPoolExecutor(max(1, min(_NUM_THREADS, len(items)))) as pool:
    list(pool.map(fn, items))


def _file_system(url: str) -> fsspec.AbstractFileSystem:
  """Returns fsspec's file system for a URL; connects to nothing yet."""
  scheme = url.partition("://")[0]
  package, extra = _PACKAGES[scheme]
  try:
    # fsspec keeps one instance per scheme and options.
    return fsspec.filesystem(
      scheme, use_listings_cache=False, **_OPTIONS[scheme]
    )
  except ImportError as e:
    raise StoreError(
      f"{url} needs the package {package}, which is not installed: pip install"
      f" 'fer_jax[{extra}]'"
    ) from e
