"""Finds and opens FER2013 in any form of its release.

The challenge's file fer2013.csv, plain, compressed or in an archive; Kaggle's
icml_face_data.csv, which has the same rows in other columns, and train.csv; and
the release as folders of images, plain or zipped. Archives are read as streams:
nothing is ever extracted to disk.

Goodfellow et al., "Challenges in Representation Learning: A report on three
machine learning contests", 2013, https://arxiv.org/abs/1307.0414
"""

import contextlib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from fer_jax.data.datasets import (
  bounded_io,
  fer2013_csv,
  fer2013_folders,
  folder_layout,
  release_places,
)
from fer_jax.data.datasets.bounded_io import BROKEN
from fer_jax.data.datasets.source_files import SourceFiles
from fer_jax.errors import MissingRelease, UserError

# The order of preference where a folder holds several; "." is the folder
# itself, if it holds the folders train and test.
FILE_ORDER = (
  "fer2013.csv",
  "fer2013.csv.gz",
  "fer2013.csv.xz",
  "fer2013.csv.zip",
  "icml_face_data.csv",
  "icml_face_data.csv.zip",
  "fer2013.tar.gz",
  "fer2013.tar",
  "fer2013.zip",
  "challenges-in-representation-learning-"
  "facial-expression-recognition-challenge.zip",
  "archive.zip",
  "train.csv",
  "train.csv.gz",
  "train.csv.zip",
  ".",
)
_CSV_NAMES = ("fer2013.csv", "icml_face_data.csv", "train.csv")
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
_COMPRESSED = (".gz", ".xz", ".bz2")
_OR_PREPARED = "; or unset dataset.manual_dir to use data prepared before"


def search_folders(manual_dir: str, data_dir: str) -> list[Path]:
  """Returns the places that `find` looks in, in order.

  Args:
    manual_dir: the user's folder or file, which is then the only place; or "".
    data_dir: the user's folder of prepared data, or "".

  Raises:
    UserError: `manual_dir` does not exist.
  """
  if manual_dir:
    place = Path(manual_dir).expanduser()
    if not place.exists():
      raise UserError(
        f"dataset.manual_dir={manual_dir} does not exist: give the folder "
        "that holds fer2013.csv, fer2013.tar.gz or another release of "
        f"FER2013, or such a file itself{_OR_PREPARED}"
      )
    return [place]
  return release_places.manual_folders(data_dir)


def find(places: Iterable[Path]) -> list[Path]:
  """Returns the releases in `places`, the one to use first.

  Of several in a folder, that is the first by `FILE_ORDER`. A place may be a
  folder, a folder that holds a folder `fer2013`, or a release's file.
  """
  found = []
  for place in places:
    if place.is_file():
      found.append(place)
    for folder in (place, place / "fer2013"):
      paths = (folder / name for name in FILE_ORDER)
      found.extend(path for path in paths if _is_release(path, folder))
  return found


def _is_release(path: Path, folder: Path) -> bool:
  if path == folder:
    folders = _split_folders(path)
    return {name.lower() for name in folders} >= {"train", "test"} or {
      name.lower() for name in folders
    } >= {"training", "testing"}
  if not path.is_file():
    return False
  if path.name == "archive.zip":  # Kaggle's name for any dataset
    with contextlib.suppress(*BROKEN), zipfile.ZipFile(path) as archive:
      names = archive.namelist()
      return bool(_csv_member(names) or fer2013_folders.members(names))
  return True


def missing(places: Iterable[Path], given: bool) -> UserError:
  """Returns the error that says what was looked for, and what to do.

  Args:
    places: where it was looked for.
    given: whether the user gave the place.
  """
  places = list(places)
  *files, last = (name for name in FILE_ORDER if name != ".")
  return MissingRelease(
    f"no release of FER2013 in {' or '.join(map(str, places))}: looked for "
    f"{', '.join(files)}, {last} and the folders train and test, also in a "
    "folder fer2013 there; get fer2013.csv or fer2013.tar.gz (Kaggle, "
    '"Challenges in Representation Learning: Facial Expression Recognition '
    "Challenge\"), or msambare's folder release fer2013 (Kaggle, "
    "archive.zip), and put it there, or set dataset.manual_dir to where "
    f"it is{_recognized(places)}{_OR_PREPARED if given else ''}"
  )


def _recognized(places: Iterable[Path]) -> str:
  """Describes what was found instead of a release; "" where nothing was."""
  for place in places:
    if any((place / name).is_file() for name in ("test.csv", "test.csv.gz")):
      return "; test.csv was found there, which has no labels: predict takes it"
    if folders := _split_folders(place):
      return (
        f"; the folder {folders[0]} was found there, but not both train and"
        " test: if it holds class folders, use dataset.name=folder"
      )
    if place.is_dir() and (hint := folder_layout.hint(place)):
      return hint
  return ""


def source_files(path: Path) -> SourceFiles:
  """Returns the files of a release."""
  files = _files_of_folders(path) if path.is_dir() else [path]
  return SourceFiles.below(path, files)


def _split_folders(release: Path) -> list[str]:
  if not release.is_dir():
    return []
  return sorted(
    entry.name
    for entry in release.iterdir()
    if entry.name.lower() in fer2013_folders.SPLIT_FOLDERS and entry.is_dir()
  )


def _files_of_folders(release: Path) -> list[Path]:
  return [
    file
    for folder in _split_folders(release)
    for file in release.glob(f"{folder}/*/*")
    if file.is_file()
  ]


def _names_in_splits(release: Path) -> list[str]:
  """Returns all files in folders named like a split, also other names of it."""
  names = {name for names in folder_layout.SPLITS.values() for name in names}
  return [
    file.relative_to(release).as_posix()
    for folder in release.iterdir()
    if folder.name.lower() in names
    for file in folder.rglob("*")
    if file.is_file()
  ]


def keeps_order(path: Path) -> bool:
  """Returns whether a release's rows are in the order of fer2013.csv."""
  if path.suffix.lower() != ".zip":
    return not path.is_dir()
  with contextlib.suppress(*BROKEN), zipfile.ZipFile(path) as archive:
    return _csv_member(archive.namelist()) is not None
  return True  # Reading it raises the error.


def read(path: Path) -> Iterator[fer2013_csv.FaceRow]:
  """Reads a release: a table in its order, images by split and number.

  Raises:
    UserError: the file is broken or a row is wrong; the message names the
      file, the line or member, and the value.
  """
  row = None
  try:
    for row in _read(path):
      yield row
  except bounded_io.TooLargeError as e:
    raise UserError(f"{path}: {e}: is this FER2013?") from e
  except BROKEN as e:
    after = f"after row {row.row} of {row.split}" if row else "at its start"
    raise UserError(
      f"{path}: damaged or truncated {after} ({e or type(e).__name__}): "
      "download the file again"
    ) from e


def _read(path: Path) -> Iterator[fer2013_csv.FaceRow]:
  if path.is_dir():
    names = {
      file.relative_to(path).as_posix(): file
      for file in _files_of_folders(path)
    }
    yield from fer2013_folders.read(
      str(path),
      list(names),
      lambda name: _read_file(names[name]),
      [name for name in _names_in_splits(path) if name not in names],
    )
  elif path.suffix.lower() == ".zip":
    with zipfile.ZipFile(path) as archive:
      yield from _read_zip(str(path), archive)
  else:
    with bounded_io.open_regular(path) as f:
      yield from _read_stream(str(path), f)


def _read_zip(
  name: str, archive: zipfile.ZipFile
) -> Iterator[fer2013_csv.FaceRow]:
  names = archive.namelist()
  if member := _csv_member(names):
    with archive.open(member) as f:
      yield from _read_stream(f"{name}/{member}", f)
  elif fer2013_folders.members(names):
    yield from fer2013_folders.read(
      name, names, lambda member: bounded_io.read_member(archive, member)
    )
  else:
    raise UserError(
      f"{name}: holds neither {' nor '.join(_CSV_NAMES)} nor images named "
      "train/CLASS/Training_N.jpg"
    )


def _read_file(path: Path) -> bytes:
  with bounded_io.open_regular(path) as f:
    return bounded_io.limited(f, bounded_io.MAX_IMAGE).read()


def _read_stream(name: str, f: IO[bytes]) -> Iterator[fer2013_csv.FaceRow]:
  """Reads a table, compressed, in a tar archive, or as it is."""
  lower = name.lower()
  if lower.endswith(_TARS):
    for member, table in bounded_io.tar_members(f):
      if _csv_member([member]):
        yield from fer2013_csv.read(f"{name}/{member}", table)
        return
    raise UserError(f"{name}: holds no {' and no '.join(_CSV_NAMES)}")
  elif lower.endswith((".csv", *_COMPRESSED)):
    yield from fer2013_csv.read(name, bounded_io.decompressed(f))
  else:
    raise UserError(
      f"{name}: not a release of FER2013, which is a table (.csv, .csv.gz,"
      " .csv.xz), an archive (.tar, .tar.gz, .zip) or a folder"
    )


def _csv_member(names: Iterable[str]) -> str | None:
  """Returns the table among the members of an archive."""
  # Kaggle's zip holds fer2013.tar.gz, which has all rows, and train.csv.
  wanted = (*_CSV_NAMES[:-1], "fer2013.tar.gz", _CSV_NAMES[-1])
  found = [n for n in names if PurePosixPath(n).name in wanted]
  return min(
    found, key=lambda n: wanted.index(PurePosixPath(n).name), default=None
  )
