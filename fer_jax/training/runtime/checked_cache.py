"""Checksums for JAX's persistent cache of compiled programs.

JAX writes an entry in place, so that a process that is killed leaves a part of
it; and it never replaces an entry that it cannot read, but compiles that
program at every start. Here each entry is written atomically, with its SHA-256
beside it, and one that does not match is removed when it is read, so that JAX
compiles and writes it again.
"""

import contextlib
import hashlib
import pathlib
from typing import Any

import jax
from jax._src import compilation_cache
from jax._src.compilation_cache_interface import CacheInterface

from fer_jax.files import atomic_write

_ENTRY = "-cache"  # the suffix of JAX's files
_CHECKSUM = "-sha256"
_MAX_SIZE = "jax_compilation_cache_max_size"  # of all entries; -1: no limit


def install() -> None:
  """Adds checksums to the cache that JAX opens, once per process.

  Must be called before JAX compiles anything. JAX has no public way to replace
  its cache; caches in object stores stay as they are.
  """
  opener: Any = compilation_cache.get_file_cache
  if getattr(opener, "is_checked", False):
    return

  def open_checked(path: str) -> tuple[CacheInterface, str] | None:
    opened = opener(path)
    if opened is None or "://" in path:
      return opened
    cache, path = opened
    return CheckedCache(cache, pathlib.Path(path)), path

  open_checked.is_checked = True  # type: ignore[attr-defined]
  compilation_cache.get_file_cache = open_checked


class CheckedCache(CacheInterface):
  """JAX's cache in a local folder, with a checksum beside each entry."""

  def __init__(self, cache: CacheInterface, folder: pathlib.Path):
    """Wraps a cache.

    Args:
      cache: JAX's.
      folder: where it keeps its entries.
    """
    self._cache = cache
    self._path = folder

  def get(self, key: str) -> bytes | None:
    """Returns an entry; None, and it is removed, if it is damaged."""
    value = self._cache.get(key)
    if value is None or self._is_whole(key, value):
      return value
    with contextlib.suppress(OSError):  # Another process may have removed it.
      self._file(key, _ENTRY).unlink(missing_ok=True)
    return None

  def put(self, key: str, value: bytes) -> None:
    """Writes an entry, unless there is one, and its checksum."""
    entry = self._file(key, _ENTRY)
    if entry.exists():
      return
    if jax.config.values[_MAX_SIZE] == -1:
      with atomic_write(entry) as draft:
        draft.write_bytes(value)
    else:
      self._cache.put(key, value)  # It makes room first.
    self._write_checksum(key, value)

  def _is_whole(self, key: str, value: bytes) -> bool:
    try:
      return self._file(key, _CHECKSUM).read_text() == _digest(value)
    except (OSError, ValueError):
      pass
    # Written without a checksum. What was compressed with zlib has one itself.
    try:
      compilation_cache.decompress_executable(value)
    except Exception:  # The types depend on the compression.
      return False
    with contextlib.suppress(OSError):
      self._write_checksum(key, value)
    return True

  def _write_checksum(self, key: str, value: bytes) -> None:
    with atomic_write(self._file(key, _CHECKSUM)) as draft:
      draft.write_text(_digest(value))

  def _file(self, key: str, suffix: str) -> pathlib.Path:
    return self._path / f"{key}{suffix}"


def _digest(value: bytes) -> str:
  return hashlib.sha256(value).hexdigest()
