"""Folders of objects that are complete or ignored, such as a checkpoint.

An upload of several objects can be interrupted. `.incomplete` is put into the
folder first and deleted last, both when it is written and when it is deleted:
a folder that has it is not read, and is replaced or deleted later. A folder
that other tools copied has none, and is read.
"""

from collections.abc import Iterable
from pathlib import Path

from fer_jax.object_stores import lease
from fer_jax.object_stores.objects import ObjectFolder

INCOMPLETE = ".incomplete"


def upload(local: Path, remote: ObjectFolder) -> None:
  """Writes all files of a folder, replacing what the remote folder holds.

  Args:
    local: complete, and not changed meanwhile.
    remote: where the files go.

  Raises:
    OSError: a file vanished meanwhile.
    StoreError: it cannot be written; then the remote folder is incomplete.
  """
  names = file_names(local)
  old = _contents(remote) - set(names)
  remote.write(INCOMPLETE, b"")
  remote.delete(old)
  remote.upload(names, local)
  remote.delete([INCOMPLETE])


def delete(remote: ObjectFolder) -> None:
  """Deletes a folder.

  Raises:
    StoreError: it cannot be deleted; then it is incomplete.
  """
  names = _contents(remote)
  if names:
    remote.write(INCOMPLETE, b"")
    remote.delete(names)
  remote.delete([INCOMPLETE])


def find(
  names: Iterable[str], parent: str
) -> tuple[dict[str, list[str]], list[str]]:
  """Finds the folders directly in a parent.

  Args:
    names: of all objects, as `ObjectFolder.list` returns them.
    parent: "checkpoints".

  Returns:
    Name of each complete folder -> names of its objects; the incomplete ones.
  """
  folders: dict[str, list[str]] = {}
  for name in names:
    folder, slash, rest = name.removeprefix(f"{parent}/").partition("/")
    if name.startswith(f"{parent}/") and slash and rest:
      folders.setdefault(folder, []).append(name)
  incomplete = [
    folder
    for folder, objects in folders.items()
    if f"{parent}/{folder}/{INCOMPLETE}" in objects
  ]
  return {f: n for f, n in folders.items() if f not in incomplete}, incomplete


def _contents(remote: ObjectFolder) -> set[str]:
  """Returns the objects besides those that say who is writing what."""
  return {
    name
    for name in remote.list()
    if name != INCOMPLETE and not name.startswith(f"{lease.FOLDER}/")
  }


def file_names(folder: Path) -> list[str]:
  """Returns the names of all files below a folder, relative to it."""
  return sorted(
    path.relative_to(folder).as_posix()
    for path in folder.rglob("*")
    if path.is_file()
  )
