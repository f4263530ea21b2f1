"""Output folders beside the user's files, which overwrite only their own.

Everything that is written where a user's files may lie (pictures with boxes,
aligned faces, videos, exported models, reports) goes through `OutputFolder` or,
for one file, `write_output`.
"""

import contextlib
import hashlib
import json
import os
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import NamedTuple, TypeVar

from fer_jax.errors import UserError
from fer_jax.files import atomic_write
from fer_jax.output_names import name_key, unused_name
from fer_jax.text_output import printable

# Lists what the package made in a folder: one JSON object per line.
MANIFEST = ".fer_jax_files.jsonl"

_Source = TypeVar("_Source", bound=str | Path)

_TIME_TOLERANCE_NS = 2_000_000_000  # FAT stores times in steps of 2 s


class OutputFolder:
  """A folder for files made from the user's; overwrites only its own.

  What it writes is noted in a hidden file of that folder (`MANIFEST`), by
  name, size, time and digest, so that a second run may replace the files of the
  first and nothing else, also in a copy of the folder.

  Args:
    folder: need not exist.
    inputs: files that must stay as they are.
    kind: what is written, "drawing" for pictures that must not be taken for
      inputs later.
  """

  def __init__(
    self,
    folder: str | os.PathLike[str],
    inputs: Iterable[str | os.PathLike[str]] = (),
    kind: str = "drawing",
  ):
    self.folder = Path(folder)
    self._inputs = {os.path.realpath(path) for path in inputs}
    self._manifest = _Manifest(self.folder, kind)
    self._sources: dict[Path, str] = {}  # of the outputs of one input each

  def path(self, name: str | os.PathLike[str]) -> Path:
    """Returns the path of an output after checking that it may be written.

    Args:
      name: of the file, relative to the folder.

    Raises:
      UserError: it is an input, or a file that the package did not make.
    """
    path = self.folder / name
    if os.path.realpath(path) in self._inputs:
      raise UserError(
        f"{path} is an input and would be overwritten: give another output"
      )
    if os.path.lexists(path) and not self._manifest.made(path):
      self._manifest.read()  # Another process may have made it since.
      if not self._manifest.made(path):
        raise UserError(
          f"{path} exists and was not made by fer_jax (or was changed since):"
          " remove it, or give another output"
        )
    return path

  def paths_for(
    self, names: Mapping[_Source, str | os.PathLike[str]]
  ) -> dict[_Source, Path]:
    """Returns the paths of outputs of one input each, checked as `path` does.

    Args:
      names: input, a file or a URL -> the name of its output, relative to the
        folder.

    Raises:
      UserError: as `path` does, or an output was made of another file, which is
        not among these inputs.
    """
    paths = {source: self.path(name) for source, name in names.items()}
    inputs = {source: _name_source(source, self.folder) for source in names}
    known = {"", *inputs.values()}
    for source, path in paths.items():
      made_of = self._manifest.source(path)
      if os.path.lexists(path) and made_of not in known:
        if "://" not in made_of:
          made_of = os.path.normpath(self.folder / made_of)
        raise UserError(
          f"{printable(path)} was made of {printable(made_of)}, and"
          f" {printable(source)} would replace it: give another output, or"
          " remove it"
        )
    self._sources |= {paths[source]: inputs[source] for source in names}
    return paths

  def unused(self, name: str) -> str:
    """Returns a name that no file has: this one, or one with a number.

    Args:
      name: of a file directly in the folder.
    """
    try:
      used = {name_key(there) for there in os.listdir(self.folder)}
    except OSError:
      used = set()
    return str(unused_name(PurePath(name), used))

  def check(self) -> None:
    """Checks every file made here before, of this kind, as `path` does.

    Raises:
      UserError: one of them was changed since.
    """
    for path in self._manifest.paths(self._manifest.kind):
      self.path(path.relative_to(self.folder))

  @contextlib.contextmanager
  def write(
    self, name: str | os.PathLike[str], *, flush: bool = False
  ) -> Iterator[Path]:
    """Yields a temporary file, which becomes an output when the block ends.

    Args:
      name: of the file, relative to the folder; folders are created.
      flush: whether to wait until it is on the disk, see `atomic_write`.

    Raises:
      UserError: as `path` does, or the file cannot be written.
    """
    path = self.path(name)
    try:
      with atomic_write(
        path,
        parents=True,
        flush=flush,
        before_rename=lambda made: self._manifest.add(
          path, made, self._sources.get(path, "")
        ),
      ) as temporary:
        yield temporary
    except OSError as e:
      raise UserError(
        f"cannot write {e.filename or path}: {e.strerror or e}; give another"
        " output or free space"
      ) from e


@contextlib.contextmanager
def write_output(
  path: str | os.PathLike[str],
  inputs: Iterable[str | os.PathLike[str]] = (),
  kind: str = "drawing",
) -> Iterator[Path]:
  """Writes one output file as `OutputFolder.write` does.

  Args:
    path: of the output.
    inputs: files that must stay as they are.
    kind: as for `OutputFolder`.

  Raises:
    UserError: it is an input, a file that the package did not make, or it
      cannot be written.
  """
  path = Path(path)
  folder = OutputFolder(path.parent, inputs, kind)
  with folder.write(path.name, flush=True) as temporary:
    yield temporary


def check_output(
  path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()
) -> Path:
  """Returns an output's path after checking that `write_output` may write it.

  Args:
    path: of the output.
    inputs: files that must stay as they are.

  Raises:
    UserError: it is an input, or a file that the package did not make.
  """
  path = Path(path)
  return OutputFolder(path.parent, inputs).path(path.name)


def made_files(folder: Path, kind: str = "", *, but: str = "") -> set[Path]:
  """Returns the files that the package made in a folder and below.

  Args:
    folder: an output folder; other folders have none.
    kind: only those of this kind, such as "drawing".
    but: without those of this kind.
  """
  try:
    listed = (folder / MANIFEST).read_bytes()
  except OSError:
    return set()
  # Long lists of faces need not be parsed.
  if kind and _of_kind(kind) not in listed:
    return set()
  if but and listed.count(_of_kind(but)) == listed.count(b"\n"):
    return set()
  manifest = _Manifest(folder, kind)
  paths = set(manifest.paths(kind)) - set(manifest.paths(but) if but else ())
  return {path for path in paths if manifest.made(path)}


def restore_times(folder: Path) -> None:
  """Gives copied files the times that they had when the package made them.

  Object stores keep none. A file of another size stays as it is, and so is
  taken for the user's.

  Args:
    folder: a copy of an output folder.
  """
  manifest = _Manifest(folder, "")
  for path in manifest.paths(""):
    manifest.restore_time(path)


class _Entry(NamedTuple):
  """A file as the package made it; older manifests say less."""

  kind: str
  size: int
  mtime_ns: int
  sha256: str
  source: str  # relative to the folder, or a URL; "" if there is no single one


class _Manifest:
  """The list of what the package made in a folder; see `MANIFEST`."""

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
      return bool(alike) and _sha256(path) in {of.sha256 for of in alike}
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
    of = _Entry(
      self.kind, stat.st_size, stat.st_mtime_ns, _sha256(made), source
    )
    entry = {"file": name, **of._asdict()}
    # Escaped, so that names that are no UTF-8 come through as well.
    with open(self._path, "ab") as file:
      file.write(json.dumps(entry).encode("ascii") + b"\n")
    self._entries.setdefault(name, []).append(of)


def _name_source(source: str | os.PathLike[str], folder: Path) -> str:
  """Returns how a folder's manifest names an input: relative to the folder.

  URLs have no user, password or query, which may be secret.
  """
  if "://" in str(source):
    url = urllib.parse.urlsplit(str(source))
    return f"{url.scheme}://{url.hostname}{url.path}"
  try:
    return os.path.relpath(source, folder)
  except ValueError:  # Another drive.
    return os.path.abspath(source)


def _of_kind(kind: str) -> bytes:
  """Returns what each line of a manifest has that lists such a file."""
  return f'"kind": {json.dumps(kind)}'.encode()


def _sha256(path: Path) -> str:
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
