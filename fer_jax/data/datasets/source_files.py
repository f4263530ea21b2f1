"""Which files a dataset is prepared from, and whether they have changed.

Names, sizes, times and inodes of all files tell almost any change without
reading them: a file moved over another, or replaced by an older one of the
same size, keeps some of these but not all. Where they differ, the contents
decide, so that a release that is only copied is not prepared again.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fer_jax.data.parallel import map_in_order

_CHEAP_BYTES = 16 << 20  # that are always read and compared
_CHEAP_FILES = 1000


@dataclasses.dataclass(frozen=True)
class SourceFiles:
  """The files that a dataset would be prepared from now.

  Attributes:
    files: name, relative to the release -> path; none for generated data.
  """

  files: Mapping[str, Path]

  @classmethod
  def below(cls, root: Path, paths: Iterable[Path]) -> "SourceFiles":
    """Returns files with their names relative to a release's folder or file."""
    folder = root if root.is_dir() else root.parent
    return cls({str(path.relative_to(folder)): path for path in paths})

  def status(self) -> dict[str, Any]:
    """Returns what can be told without reading the files, in JSON's types.

    Raises:
      OSError: a file is gone.
    """
    names, status, total = hashlib.sha256(), hashlib.sha256(), 0
    for name, path in sorted(self.files.items()):
      s = path.stat()
      total += s.st_size
      names.update(os.fsencode(name) + b"\0%d\0" % s.st_size)
      status.update(b"%d %d %d\0" % (s.st_mtime_ns, s.st_ctime_ns, s.st_ino))
    return {
      "num_files": len(self.files),
      "size": total,
      "names": names.hexdigest(),
      "status": status.hexdigest(),
    }

  def contents(self) -> str:
    """Returns a hash of the contents; reads all files.

    Raises:
      OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    items = sorted(self.files.items())
    for file in map_in_order(_digest, (path for _, path in items)):
      digest.update(file)
    return digest.hexdigest()

  def record(self) -> dict[str, Any]:
    """Returns what is stored with prepared data."""
    return self.status() | {"contents": self.contents()}

  def matches(self, recorded: Mapping[str, Any], verify: bool = False) -> bool:
    """Returns whether these are the files that were recorded.

    Args:
      recorded: as `record` returned it.
      verify: reads the contents even where nothing else differs.
    """
    status = self.status()
    if any(
      recorded.get(k) != status[k] for k in ("num_files", "size", "names")
    ):
      return False
    if not self.files:
      return True
    cheap = status["size"] <= _CHEAP_BYTES and len(self.files) <= _CHEAP_FILES
    if recorded.get("status") == status["status"] and not (verify or cheap):
      return True
    return recorded.get("contents") == self.contents()


def read_record(metadata: Path) -> dict[str, Any] | None:
  """Returns what prepared data were made from; None where there are none."""
  try:
    source = json.loads(metadata.read_text())["source"]
  except (OSError, ValueError, KeyError, TypeError):
    return None
  return source if isinstance(source, dict) else None


def _digest(path: Path) -> bytes:
  with open(path, "rb") as f:
    return hashlib.file_digest(
      f, lambda: hashlib.blake2b(digest_size=32)
    ).digest()
