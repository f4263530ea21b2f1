"""Finds and reads fer2013new.csv, the votes of FER+ on FER2013's images.

Its rows are in the order of fer2013.csv, and only that order joins the two:
the image names in it are no row numbers from row 60 on, and 173 are blank. In
the training and validation rows, where this was checked, all ten people voted
NF (no face) on every blank one, so that the names are not needed.
"""

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import Int

from fer_jax.data.datasets import (
  bounded_io,
  class_names,
  csv_table,
  fer2013_releases,
)
from fer_jax.errors import MissingRelease, UserError

FILE = "fer2013new.csv"
VOTERS = 10  # on each image
_NAMES = (FILE, f"{FILE}.gz", "FERPlus-master.zip", "FERPlus.zip")
# Also beside a fer2013.csv that lies in a folder fer2013.
_FOLDERS = (".", "FERPlus", "FERPlus-master", "fer2013")
_COLUMNS = ("Usage", *class_names.FERPLUS_COLUMNS)
_ORDERED = (
  "fer2013.csv, plain, compressed or in an archive (fer2013.tar.gz), or "
  "icml_face_data.csv"
)


class VoteRow(NamedTuple):
  """One row of votes."""

  split: str
  votes: Int[np.ndarray, "10"]
  line: int  # of the file, from 1


def search_folders(manual_dir: str, data_dir: str) -> list[Path]:
  """Returns the places to look for releases and votes, in order.

  Args:
    manual_dir: the user's folder, release or file of votes, which is then the
      only place (and what lies beside a file); or "".
    data_dir: the user's folder of prepared data, or "".

  Raises:
    UserError: `manual_dir` does not exist.
  """
  if manual_dir and not Path(manual_dir).expanduser().exists():
    raise UserError(
      f"dataset.manual_dir={manual_dir} does not exist: give the folder "
      f"that holds {FILE} and FER2013 ({_ORDERED})"
    )
  places = fer2013_releases.search_folders(manual_dir, data_dir)
  return [place.parent if place.name in _NAMES else place for place in places]


def find(places: Iterable[Path]) -> list[Path]:
  """Returns the files of votes in `places`, the one to use first.

  A place is a folder, or a release's file, beside which they may lie.
  """
  found: list[Path] = []
  for place in places:
    root = place.parent if place.is_file() else place
    paths = (root / folder / name for folder in _FOLDERS for name in _NAMES)
    found.extend(path for path in paths if path.is_file())
  return found


def missing(
  places: Iterable[Path], *, faces: bool, votes: bool, given: bool
) -> UserError:
  """Returns the error that says what was looked for, and what to do.

  Args:
    places: where it was looked for.
    faces: whether a release of FER2013 is missing.
    votes: whether the votes are.
    given: whether the user gave the place.
  """
  what = []
  if faces:
    what.append(
      f"no FER2013 in the order of fer2013.csv (get {_ORDERED}: Kaggle, "
      '"Challenges in Representation Learning: Facial Expression Recognition '
      'Challenge")'
    )
  if votes:
    what.append(
      f"no votes of FER+ (get {FILE}, alone or in FERPlus-master.zip, from "
      "https://github.com/microsoft/FERPlus)"
    )
  prepared = ", or leave it away to use data prepared before" if given else ""
  return MissingRelease(
    f"{' and '.join(what)} in {' or '.join(map(str, places))}: put both files "
    "there, or set dataset.manual_dir to the folder that holds both"
    f"{prepared}"
  )


def out_of_order(release: Path) -> UserError:
  """Returns the error of a release that is folders of images."""
  return UserError(
    f"{release}: the votes of FER+ are joined to the rows of fer2013.csv by "
    "position, which folders of images do not preserve: neither their file "
    "numbers (Training_N.jpg) nor FER+'s image names are row numbers; "
    f"put {_ORDERED} beside it"
  )


def read(path: Path) -> Iterator[VoteRow]:
  """Reads the votes, in the file's order.

  Raises:
    UserError: the file is broken or a row is wrong; the message names the
      file, the line and the value.
  """
  try:
    if path.suffix == ".zip":
      yield from _read_zip(path)
    else:
      with bounded_io.open_regular(path) as f:
        yield from _read(str(path), bounded_io.decompressed(f))
  except bounded_io.TooLargeError as e:
    raise UserError(f"{path}: {e}: is this {FILE}?") from e
  except bounded_io.BROKEN as e:
    raise UserError(
      f"{path}: damaged or truncated ({e or type(e).__name__}): download the"
      " file again"
    ) from e


def _read_zip(path: Path) -> Iterator[VoteRow]:
  with zipfile.ZipFile(path) as archive:
    for name in archive.namelist():
      if PurePosixPath(name).name == FILE and "__MACOSX" not in name:
        with archive.open(name) as f:
          yield from _read(f"{path}/{name}", bounded_io.limited(f))
        return
  raise UserError(f"{path}: holds no {FILE}")


def _read(name: str, f: IO[bytes]) -> Iterator[VoteRow]:
  table = csv_table.open_table(name, f, _COLUMNS, FILE)
  for line, fields in table.rows(_COLUMNS):
    try:
      split, votes = _parse([field.decode("latin-1") for field in fields])
    except ValueError as e:
      raise UserError(f"{name}, line {line}: {e}") from e
    yield VoteRow(split, votes, line)


def _parse(fields: Sequence[str]) -> tuple[str, Int[np.ndarray, "10"]]:
  """Returns split and votes of a row, its fields in the order of `_COLUMNS`."""
  usage, *texts = fields
  if usage not in class_names.FER2013_SPLITS:
    raise ValueError(
      f"Usage {usage[:20]!r} must be one of"
      f" {', '.join(class_names.FER2013_SPLITS)}"
    )
  for column, text in zip(class_names.FERPLUS_COLUMNS, texts, strict=True):
    if text not in [str(votes) for votes in range(VOTERS + 1)]:
      raise ValueError(f"{column} {text[:20]!r} must be 0 to {VOTERS} votes")
  votes = np.array([int(text) for text in texts])
  if not 0 < votes.sum() <= VOTERS:
    raise ValueError(f"{votes.sum()} votes in all, where {VOTERS} people voted")
  return class_names.FER2013_SPLITS[usage], votes
