"""Tables of text: aligned columns for terminals, Markdown and CSV."""

import dataclasses
import unicodedata
from collections.abc import Sequence

from fer_jax.text_output import csv_line, printable

Row = Sequence[str]


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of formatted cells.

  Attributes:
    name: of its file.
    title: one line on what it shows.
    header: names of the columns.
    rows: cells; the first names the row.
  """

  name: str
  title: str
  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]

  def to_markdown(self) -> str:
    """Returns the table as GitHub's Markdown, with aligned columns."""
    lines = format_markdown(self.header, self.rows)
    return f"{self.title}\n\n" + "\n".join(lines) + "\n"

  def to_csv(self) -> str:
    """Returns the same cells as CSV."""
    return "".join(csv_line(row) + "\n" for row in (self.header, *self.rows))


def format_table(rows: Sequence[Row], *, num_left: int = 1) -> list[str]:
  r"""Aligns the columns of a table.

  Args:
    rows: cells, the same number in every row; the header is a row too.
    num_left: number of columns aligned to the left, the others to the right.

  Returns:
    One line per row; columns are separated by two spaces.

  >>> print(*format_table([["class", "images"], ["sad", "12"]]), sep="\n")
  class  images
  sad        12
  """
  return ["  ".join(cells).rstrip() for cells in _aligned(rows, num_left)]


def format_markdown(
  header: Row, rows: Sequence[Row], num_left: int = 1
) -> list[str]:
  r"""Returns the lines of a Markdown table.

  Args:
    header: names of the columns.
    rows: cells, as many per row as in the header; `|` is escaped.
    num_left: how many columns are aligned to the left; the others to the right.

  >>> print(*format_markdown(["class", "images"], [["sad", "12"]]), sep="\n")
  | class | images |
  | ----- | -----: |
  | sad   |     12 |
  """
  table = [
    [printable(cell).replace("|", "\\|") for cell in row]
    for row in (header, *rows)
  ]
  first, *others = _aligned(table, num_left)
  widths = [display_width(cell) for cell in first]
  rule = ["-" * width for width in widths[:num_left]]
  rule += ["-" * (width - 1) + ":" for width in widths[num_left:]]
  return [f"| {' | '.join(cells)} |" for cells in (first, rule, *others)]


def display_width(text: str) -> int:
  """Returns the number of terminal columns of a text.

  Chinese, Japanese and Korean characters take two, combining marks none.

  >>> display_width("glücklich"), display_width("高兴")
  (9, 4)
  """
  wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
  return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def _aligned(rows: Sequence[Row], num_left: int) -> list[list[str]]:
  widths = [
    max(map(display_width, column)) for column in zip(*rows, strict=True)
  ]
  result = []
  for row in rows:
    cells = []
    for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
      spaces = " " * (width - display_width(cell))
      cells.append(cell + spaces if i < num_left else spaces + cell)
    result.append(cells)
  return result
