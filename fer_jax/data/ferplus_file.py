"""Finds and reads fer2013new.csv, the votes of FER+."""

import csv
import gzip
import io
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from fer_jax.data import labels
from fer_jax.errors import UserError

FILE = "fer2013new.csv"
_NAMES = (FILE, f"{FILE}.gz", "FERPlus-master.zip", "FERPlus.zip")
_FOLDERS = (".", "FERPlus", "FERPlus-master", "ferplus")
_COLUMNS = ("Usage", *labels.FERPLUS_COLUMNS)
_VOTERS = 10
_BROKEN = (EOFError, OSError, zlib.error, zipfile.BadZipFile, RuntimeError)


class VoteRow(NamedTuple):
  """One row of votes."""

  split: str
  votes: Int[np.ndarray, "10"]


def find(places: Iterable[Path]) -> list[Path]:
  """Returns the files of votes in `places`, the one to take first.

  A place is a folder, or a release's file, beside which they may lie.
  """
  found: list[Path] = []
  for place in places:
    root = place if place.is_dir() else place.parent
    paths = (root / folder / name for folder in _FOLDERS for name in _NAMES)
    found.extend(path for path in paths if path.is_file())
  return found


def missing(places: Iterable[Path]) -> UserError:
  """Returns the error that tells what was looked for, and what to do."""
  return UserError(
    f"no votes of FER+ in {' or '.join(map(str, places))}: looked for"
    f" {', '.join(_NAMES)}, also in a folder FERPlus or FERPlus-master there;"
    f" get {FILE} from https://github.com/microsoft/FERPlus and put it beside"
    " fer2013.csv, or set --config.dataset.data_dir to the folder that holds"
    " both; to train on the embedded set of drawn faces instead: python -m"
    " fer_jax.train --config=configs/resnet18.py"
    " --config.dataset.name=synthetic_faces"
  )


def read(path: Path) -> Iterator[VoteRow]:
  """Reads the votes, in the file's order.

  Raises:
    UserError: the file is broken or a row is wrong; the message names the
      file, the line and the value.
  """
  try:
    if path.suffix == ".gz":
      with gzip.open(path, "rt", encoding="utf-8-sig") as f:
        yield from _read(str(path), f)
    elif path.suffix == ".zip":
      yield from _read_zip(path)
    else:
      with open(path, encoding="utf-8-sig") as f:
        yield from _read(str(path), f)
  except (*_BROKEN, UnicodeDecodeError) as e:
    raise UserError(
      f"{path}: broken or cut off ({e or type(e).__name__}): get the file again"
    ) from e


def _read_zip(path: Path) -> Iterator[VoteRow]:
  with zipfile.ZipFile(path) as archive:
    for name in archive.namelist():
      if PurePosixPath(name).name == FILE and "__MACOSX" not in name:
        with archive.open(name) as f:
          text = io.TextIOWrapper(f, encoding="utf-8-sig")
          yield from _read(f"{path}/{name}", text)
        return
  raise UserError(f"{path}: holds no {FILE}")


def _read(name: str, lines: Iterable[str]) -> Iterator[VoteRow]:
  rows = csv.reader(lines)
  header = [column.strip() for column in next(rows, [])]
  absent = [column for column in _COLUMNS if column not in header]
  if absent:
    raise UserError(
      f"{name}, line 1: no column {' and no '.join(absent)} in the header"
      f" {','.join(header)[:60]!r}: is this {FILE}?"
    )
  usage_place, *vote_places = (header.index(column) for column in _COLUMNS)
  for line, fields in enumerate(rows, start=2):
    if not any(fields):
      continue  # An empty line, mostly the last.
    if len(fields) != len(header):
      raise UserError(
        f"{name}, line {line}: {len(fields)} fields instead of"
        f" {len(header)}: is the file cut off?"
      )
    usage = fields[usage_place].strip()
    if usage not in labels.FER2013_SPLITS:
      raise UserError(
        f"{name}, line {line}: Usage {usage[:20]!r} must be one of"
        f" {', '.join(labels.FER2013_SPLITS)}"
      )
    votes = [fields[place].strip() for place in vote_places]
    for column, vote in zip(labels.FERPLUS_COLUMNS, votes, strict=True):
      if not (vote.isascii() and vote.isdigit() and int(vote) <= _VOTERS):
        raise UserError(
          f"{name}, line {line}: {column} {vote[:20]!r} must be 0 to {_VOTERS}"
          " votes"
        )
    counts = np.array([int(vote) for vote in votes])
    if not 0 < counts.sum() <= _VOTERS:
      raise UserError(
        f"{name}, line {line}: {counts.sum()} votes in all, where {_VOTERS}"
        " people voted"
      )
    yield VoteRow(labels.FER2013_SPLITS[usage], counts)
