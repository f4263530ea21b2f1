"""The list of the files that the package made in an output folder."""

import contextlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from fer_jax.files import sha256

# Lists what the package made in a folder: one JSON object per line.
MANIFEST = ".fer_jax_files.jsonl"

_TIME_TOLERANCE_NS = 2_000_000_000  # FAT stores times in steps of 2 s


def of_kind(kind: str) -> bytes:
  """Returns what each line of a manifest has that lists such a file."""
  return f'"kind": {json.dumps(kind)}'.encode()


class _Entry(NamedTuple):
  """A file as the package made it; older manifests say less."""

  kind: str
  size: int
  mtime_ns: int
  sha256: str
  source: str  # relative to the folder, or a URL; "" if there is no single one


class Manifest:
  """The list of what the package made in a folder.

  Args:
    folder: an output folder; without a list, it is empty.
    kind: of the files that are added.
  """

  def __init__(self, folder: Path, kind: str):
    self._folder = folder
    self.kind = kind
    self._path = folder / MANIFEST
    self.read()

  def read(self) -> None:
    """Reads the list; what is damaged in it is left out."""
    entries: dict[str, list[_Entry]] = {}
    with contextlib.suppress(OSError):
      for line in self._path.read_bytes().splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
          entry = json.loads(line)
          of = _Entry(
            entry["kind"],
            int(entry["size"]),
            int(entry["mtime_ns"]),
            str(entry.get("sha256")),
            str(entry.get("source", "")),
          )
          entries.setdefault(entry["file"], []).append(of)
    self._entries = entries  # At once: other threads ask for it meanwhile.

  def paths(self, kind: str) -> list[Path]:
    """Returns the files that are listed, last of a kind unless it is ""."""
    return [
      self._folder / name
      for name, entries in self._entries.items()
      if not kind or kind == entries[-1].kind
    ]

  def made(self, path: Path) -> bool:
    """Returns whether a file is as the package made it."""
    name = path.relative_to(self._folder).as_posix()
    try:
      stat = path.stat()
      alike = [
        of for of in self._entries.get(name, ()) if of.size == stat.st_size
      ]
      if any(
        abs(of.mtime_ns - stat.st_mtime_ns) <= _TIME_TOLERANCE_NS
        for of in alike
      ):
        return True
      return bool(alike) and sha256(path) in {of.sha256 for of in alike}
    except OSError:
      return False

  def source(self, path: Path) -> str:
    """Returns what a file was made of last; "" if that is not known."""
    name = path.relative_to(self._folder).as_posix()
    return self._entries[name][-1].source if name in self._entries else ""

  def restore_time(self, path: Path) -> None:
    """Sets a file's time to that of the last entry, if its size is the same."""
    name = path.relative_to(self._folder).as_posix()
    last = self._entries[name][-1]
    with contextlib.suppress(OSError):
      if path.stat().st_size == last.size:
        os.utime(path, ns=(last.mtime_ns, last.mtime_ns))

  def add(self, path: Path, made: Path, source: str) -> None:
    """Notes a complete file, `made`, before it is renamed to `path`."""
    name, stat = path.relative_to(self._folder).as_posix(), made.stat()
    of = _Entry(self.kind, stat.st_size, stat.st_mtime_ns, sha256(made), source)
    entry = {"file": name, **of._asdict()}
    # Escaped, so that names that are no UTF-8 come through as well.
    with open(self._path, "ab") as file:
      file.write(json.dumps(entry).encode("ascii") + b"\n")
    self._entries.setdefault(name, []).append(of)
