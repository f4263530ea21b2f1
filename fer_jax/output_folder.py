"""Output folders beside the user's files, which overwrite only their own.

Everything that is written where a user's files may lie (pictures with boxes,
aligned faces, videos, exported models, reports) goes through `OutputFolder` or,
for one file, `write_output`.
"""

import contextlib
import os
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import TypeVar

from fer_jax.errors import UserError
from fer_jax.files import atomic_write, check_writable
from fer_jax.output_manifest import MANIFEST, Manifest, of_kind
from fer_jax.output_names import name_key, unused_name
from fer_jax.text_output import printable

_Source = TypeVar("_Source", bound=str | Path)


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
    self._manifest = Manifest(self.folder, kind)
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
      UserError: as `check_writable` and `path` do, or an output was made of
        another file, which is not among these inputs.
    """
    check_writable(self.folder)
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

    Raises:
      UserError: as `check_writable` does.
    """
    check_writable(self.folder)
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
      BrokenPipeError: of what else the block writes to.
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
    except BrokenPipeError:  # Not of a file: the reader of stdout has left.
      raise
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
  if kind and of_kind(kind) not in listed:
    return set()
  if but and listed.count(of_kind(but)) == listed.count(b"\n"):
    return set()
  manifest = Manifest(folder, kind)
  paths = set(manifest.paths(kind)) - set(manifest.paths(but) if but else ())
  return {path for path in paths if manifest.made(path)}


def restore_times(folder: Path) -> None:
  """Gives copied files the times that they had when the package made them.

  Object stores keep none. A file of another size stays as it is, and so is
  taken for the user's.

  Args:
    folder: a copy of an output folder.
  """
  manifest = Manifest(folder, "")
  for path in manifest.paths(""):
    manifest.restore_time(path)


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
