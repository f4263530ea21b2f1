"""ckextended.csv: one face per sequence of CK+, in the columns of FER2013."""

from collections.abc import Iterator
from pathlib import Path

from fer_jax.data.datasets import bounded_io, class_names, csv_table
from fer_jax.data.datasets.ckplus_sequences import Face
from fer_jax.data.datasets.fer2013_csv import parse_pixels, parse_usage
from fer_jax.errors import UserError

FILE = "ckextended.csv"


def read(path: Path) -> Iterator[Face]:
  """Reads the faces, in the table's order.

  Raises:
    UserError: a row is wrong; the message names the line and the value.
  """
  columns = ("emotion", "pixels", "Usage")
  with bounded_io.open_regular(path) as f:
    stream = bounded_io.decompressed(f)
    table = csv_table.open_table(str(path), stream, columns, FILE)
    for row, (line, fields) in enumerate(table.rows(columns)):
      label, pixels, usage = fields
      try:
        face = Face(
          parse_pixels(pixels), _label(label), row, split=parse_usage(usage)
        )
      except ValueError as e:
        raise UserError(f"{path}, line {line}: {e}") from e
      yield face


def _label(text: bytes) -> int:
  if text not in [b"%d" % i for i in range(8)]:
    raise ValueError(f"emotion {text[:20].decode('latin-1')!r} must be 0 to 7")
  return class_names.CKEXTENDED_LABELS[int(text)]
