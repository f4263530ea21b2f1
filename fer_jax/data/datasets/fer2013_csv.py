"""Rows of FER2013's tables: fer2013.csv, and Kaggle's icml_face_data.csv.

The second has the same rows in other columns. Every value is checked, since
`numpy` would make some image of almost any text.
"""

from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import UInt8

from fer_jax.data.datasets import class_names
from fer_jax.errors import UserError

SIDE = 48  # pixels, of every image
_COLUMNS = ("emotion", "pixels", "Usage")
# The longest row, 2,304 numbers of three digits, is below 10 kB; a longer
# line is another file's, or a decompression bomb's.
_MAX_LINE = 1 << 16


class FaceRow(NamedTuple):
  """One row of a release, table or not."""

  split: str
  image: UInt8[np.ndarray, "48 48 1"]
  label: int
  row: int  # from 0 in a table, the number in the name of an image file


def read(name: str, f: IO[bytes]) -> Iterator[FaceRow]:
  """Reads the rows of a csv file, in its order.

  Args:
    name: of the file, for messages.
    f: its lines. Columns may stand in any order, and further ones beside them.

  Raises:
    UserError: a column is missing or a row is wrong; the message names the
      file, the line and the value.
  """
  lines = iter(lambda: f.readline(_MAX_LINE), b"")
  header = next(lines, b"").removeprefix(b"\xef\xbb\xbf")
  columns = [
    field.strip(b' "\r\n').decode("latin-1") for field in header.split(b",")
  ]
  absent = [column for column in _COLUMNS if column not in columns]
  if absent:
    raise UserError(
      f"{name}, line 1: no column {' and no '.join(absent)} in the header "
      f"{header[:60]!r}: is this fer2013.csv or icml_face_data.csv?"
    )
  places = [columns.index(column) for column in _COLUMNS]
  row = 0
  for number, line in enumerate(lines, start=2):
    fields = [field.strip(b' "\r\n') for field in line.split(b",")]
    if fields == [b""]:
      continue  # An empty line, mostly the last.
    try:
      if len(fields) != len(columns):
        raise ValueError(
          f"{len(fields)} fields instead of {len(columns)}: "
          "is the file cut off?"
        )
      label, pixels, usage = (fields[place] for place in places)
      face = FaceRow(
        parse_usage(usage), parse_pixels(pixels), parse_label(label), row
      )
    except ValueError as e:
      raise UserError(f"{name}, line {number}: {e}") from e
    yield face
    row += 1


def parse_usage(text: bytes) -> str:
  """Returns the split that a value of the column `Usage` stands for."""
  usage = text.decode("latin-1")
  if usage not in class_names.FER2013_SPLITS:
    raise ValueError(
      f"Usage {_short(text)} must be one of"
      f" {', '.join(class_names.FER2013_SPLITS)}"
    )
  return class_names.FER2013_SPLITS[usage]


def parse_label(text: bytes) -> int:
  """Returns the class number in the column `emotion`."""
  if len(text) != 1 or text not in b"0123456":
    raise ValueError(
      f"emotion {_short(text)} must be 0 to"
      f" {len(class_names.FER2013_CLASSES) - 1}"
    )
  return int(text)


def parse_pixels(text: bytes) -> UInt8[np.ndarray, "48 48 1"]:
  """Returns the image in the column `pixels`.

  Args:
    text: 2,304 numbers, 0 to 255, row by row, parted by spaces.

  Raises:
    ValueError: it is not that; the message names the value.
  """
  text = text.strip(b" ")
  # Only digits and spaces are left for fromstring, which is fast but would
  # take "+1" for a number and stop at anything else.
  if text.translate(None, b"0123456789 "):
    wrong = next(
      part for part in text.split(b" ") if not part.isdigit() and part
    )
    raise ValueError(f"pixel {_short(wrong)} is not a number from 0 to 255")
  values = np.fromstring(text, np.int64, sep=" ") if text else np.empty(0)
  if values.size != SIDE * SIDE:
    raise ValueError(f"{values.size} pixels instead of {SIDE * SIDE}")
  if values.max() > 255:
    wrong = text.split()[values.argmax()]
    raise ValueError(f"pixel {_short(wrong)} is not a number from 0 to 255")
  return values.astype(np.uint8).reshape(SIDE, SIDE, 1)


def _short(text: bytes) -> str:
  """Returns a value for a message: quoted, and not a page of it."""
  shown = text.decode("latin-1")
  return repr(shown if len(shown) <= 20 else shown[:20] + "...")
