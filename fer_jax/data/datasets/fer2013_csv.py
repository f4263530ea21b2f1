"""The tables of FER2013: fer2013.csv and the forms of it on Kaggle.

icml_face_data.csv has the same rows in other columns, train.csv the Training
rows without `Usage`, and test.csv images without labels. Every value is
checked, since `numpy` would make some image of almost any text.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from jaxtyping import UInt8

from fer_jax.data.datasets import bounded_io, class_names, csv_table
from fer_jax.errors import UserError

SIDE = 48  # pixels, of every image
_EXPECTED = "fer2013.csv, icml_face_data.csv or train.csv"


class FaceRow(NamedTuple):
  """One row of a release, table or not."""

  split: str
  image: UInt8[np.ndarray, "48 48 1"]
  label: int
  row: int  # from 0 in a table, the number in the name of an image file


def read(name: str, f: IO[bytes]) -> Iterator[FaceRow]:
  """Reads the rows of a table, in its order.

  Args:
    name: name of the file, for messages.
    f: its content. Columns may be in any order and case, with others beside
      them; without a column `Usage` all rows are of the training split.

  Raises:
    UserError: a column is missing or a row is wrong; the message names the
      file, the line and the value.
  """
  table = csv_table.open_table(name, f, ["pixels"], _EXPECTED)
  if "emotion" not in table.columns:
    raise UserError(
      f"{name}: a table of images without labels (no column emotion), such as"
      " Kaggle's test.csv, can be predicted but not trained on; train on"
      f" {_EXPECTED}"
    )
  columns = ["emotion", "pixels"]
  if "usage" in table.columns:
    columns.append("Usage")
  for row, (line, fields) in enumerate(table.rows(columns)):
    try:
      split = parse_usage(fields[2]) if len(fields) > 2 else "train"
      image = parse_pixels(fields[1])
      face = FaceRow(split, image, parse_label(fields[0]), row)
    except ValueError as e:
      raise UserError(f"{name}, line {line}: {e}") from e
    yield face


def is_image_table(path: Path) -> bool:
  """Returns whether a file is a table with a column `pixels`."""
  name = path.name.lower().removesuffix(".gz").removesuffix(".xz")
  if not name.endswith(".csv"):
    return False
  try:
    with bounded_io.open_regular(path) as f:
      stream = bounded_io.decompressed(f)
      csv_table.open_table(str(path), stream, ["pixels"], "")
  except (UserError, *bounded_io.BROKEN):
    return False
  return True


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
    text: 2,304 numbers, 0 to 255, row by row, separated by spaces.

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
  """Returns a value for a message: quoted and truncated."""
  shown = text.decode("latin-1")
  return repr(shown if len(shown) <= 20 else shown[:20] + "...")
