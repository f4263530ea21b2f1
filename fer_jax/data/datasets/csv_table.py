"""Tables of comma-separated values, read as a stream of bounded lines.

The releases' fields hold no separators, so that quotes need no care beyond
being removed; a line with another number of fields is an error.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from fer_jax.data.datasets import bounded_io
from fer_jax.errors import UserError

_SEPARATORS = (b",", b";", b"\t")
_STRIPPED = b' "\r\n'


@dataclasses.dataclass(frozen=True)
class CsvTable:
  """A table whose header has been read.

  Attributes:
    name: name of the file, for messages.
    columns: name of each column in lower case -> its index.
    num_columns: number of columns, also those with the same name or none.
    lines: the lines after the header.
    separator: between fields.
  """

  name: str
  columns: Mapping[str, int]
  num_columns: int
  lines: Iterator[bytes]
  separator: bytes

  def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, list[bytes]]]:
    """Yields line number and fields of each row; empty lines are skipped.

    Args:
      columns: the columns to return, in this order.

    Raises:
      UserError: a line has another number of fields than the header.
    """
    indices = [self.columns[column.lower()] for column in columns]
    number = 2
    try:
      while line := next(self.lines, b""):
        if not line.isspace():
          fields = line.split(self.separator)
          if len(fields) != self.num_columns:
            raise ValueError(
              f"{len(fields)} fields instead of {self.num_columns}: is the"
              " file truncated?"
            )
          yield number, [fields[index].strip(_STRIPPED) for index in indices]
        number += 1
    except ValueError as e:
      raise UserError(f"{self.name}, line {number}: {e}") from e


def open_table(
  name: str, f: IO[bytes], required: Sequence[str], expected: str
) -> CsvTable:
  """Reads the header of a table.

  Names of columns are compared without case, spaces and quotes; the separator
  is a comma, a semicolon or a tab.

  Args:
    name: name of the file, for messages.
    f: its lines.
    required: columns that it must have.
    expected: the files this may be, for the message if it is another one.

  Raises:
    UserError: a column is missing, or the header is too long.
  """
  lines = bounded_io.lines(f)
  try:
    header = next(lines, b"").removeprefix(b"\xef\xbb\xbf")
  except ValueError as e:
    raise UserError(f"{name}, line 1: {e}: is this {expected}?") from e
  separator = max(_SEPARATORS, key=header.count)
  fields = header.split(separator)
  columns = {
    field.strip(_STRIPPED).decode("latin-1").lower(): index
    for index, field in enumerate(fields)
  }
  absent = [column for column in required if column.lower() not in columns]
  if absent:
    raise UserError(
      f"{name}, line 1: no column {' and no '.join(absent)} in the header "
      f"{header[:60]!r}: is this {expected}?"
    )
  return CsvTable(name, columns, len(fields), lines, separator)
