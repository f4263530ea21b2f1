"""Names of outputs that are made of several inputs: none twice."""

import os
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePath


def output_names(
  sources: Mapping[Path, Path], suffix: str, *, keep_folders: bool = False
) -> dict[Path, PurePath]:
  """Returns a name for each source's output, none twice.

  The name is the source's, relative to the folder it was found in. Where two
  would be the same, also on systems that ignore case, it is relative to what
  all folders have in common, and where that is the same too (a.jpg and a.png)
  keeps the source's suffix, or has a number.

  Args:
    sources: file -> the input it was found by: itself or a folder above.
    suffix: of the outputs.
    keep_folders: for folders whose subfolders mean something, such as classes:
      where two names would be the same, only the later one is changed, to have
      a number. Files that are all named one by one have no such folders.

  >>> sources = {Path(p): Path(p) for p in ("x/a.png", "y/a.jpg", "y/a.png")}
  >>> [str(name) for name in output_names(sources, ".png").values()]
  ['x/a.png', 'y/a.jpg.png', 'y/a.png.png']
  """
  bases = {
    path: given if given != path else given.parent
    for path, given in sources.items()
  }
  names = {path: path.relative_to(bases[path]) for path in sources}
  if keep_folders and any(path != given for path, given in sources.items()):
    return _numbered(names, suffix)
  if _repeated(names, suffix):
    absolute = {path: path.absolute() for path in sources}
    common = os.path.commonpath([b.absolute() for b in bases.values()])
    names = {path: absolute[path].relative_to(common) for path in sources}
  repeated, used = _repeated(names, suffix), set[str]()
  return {
    path: unused_name(
      name.with_name((name.name if path in repeated else name.stem) + suffix),
      used,
    )
    for path, name in names.items()
  }


def unused_name(name: PurePath, used: set[str]) -> PurePath:
  """Returns a name for an output, numbered if it is used already.

  Args:
    name: the name, relative to the output folder.
    used: the names that are used, to which the result is added; names that
      differ in case are the same.

  >>> used = set()
  >>> [str(unused_name(PurePath(n), used)) for n in ("a.png", "A.png")]
  ['a.png', 'A-2.png']
  """
  number, unused = 1, name
  while (key := name_key(unused)) in used:
    number += 1
    unused = name.with_name(f"{name.stem}-{number}{name.suffix}")
  used.add(key)
  return unused


def _numbered(names: Mapping[Path, Path], suffix: str) -> dict[Path, PurePath]:
  """Returns the outputs' names; of equal ones, all but the first numbered."""
  plain = {p: name.with_name(name.stem + suffix) for p, name in names.items()}
  # A numbered name must differ from all of these.
  used = {name_key(name) for name in plain.values()}
  first: dict[str, Path] = {}
  for path, name in plain.items():
    first.setdefault(name_key(name), path)
  return {
    path: name if first[name_key(name)] == path else unused_name(name, used)
    for path, name in plain.items()
  }


def _repeated(names: Mapping[Path, Path], suffix: str) -> set[Path]:
  """Returns the sources whose outputs would share a file."""
  found: dict[str, list[Path]] = {}
  for path, name in names.items():
    found.setdefault(name_key(name.with_name(name.stem + suffix)), []).append(
      path
    )
  return {path for group in found.values() if len(group) > 1 for path in group}


def name_key(name: str | PurePath) -> str:
  """Returns a name as systems compare it that ignore case."""
  return unicodedata.normalize("NFC", str(name)).casefold()
