r"""Text from files and users, made safe for terminals and spreadsheets.

File and class names may hold anything: escape sequences that drive a terminal,
bytes that are no UTF-8, formulas that a spreadsheet would run.
"""

import contextlib
import csv
import io
import re
from collections.abc import Iterable
from typing import Any, TextIO

# A spreadsheet takes cells that begin with one of these for formulas.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
# Signed numbers and their intervals, which run nothing: "+1.50 [-0.20, 3.20]".
_NUMBERS = re.compile(r"[-+]?[-+0-9.,±%\[\] ]*")


def printable(text: object) -> str:
  r"""Returns text with what a terminal must not see written as escapes.

  Args:
    text: what to print; paths with bytes that are no UTF-8 are fine.

  >>> printable("happy 高兴 \x1b[31m \udce9")
  'happy 高兴 \\x1b[31m \\xe9'
  """
  return "".join(map(_printable_character, str(text)))


def counted(number: int, noun: str) -> str:
  """Returns a number of things in words.

  >>> counted(1, "image"), counted(3589, "image")
  ('1 image', '3,589 images')
  """
  return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _printable_character(character: str) -> str:
  code = ord(character)
  if 0xDC80 <= code <= 0xDCFF:  # a byte that os.fsdecode could not decode
    return f"\\x{code - 0xDC00:02x}"
  if character.isprintable() or character in "\u200c\u200d":  # joins emoji
    return character
  if code <= 0xFF:
    return f"\\x{code:02x}"
  return character.encode("unicode_escape").decode("ascii")


def csv_line(cells: Iterable[object]) -> str:
  r"""Returns a line of CSV, without formulas and line breaks.

  A text cell that a spreadsheet would take for a formula gets an apostrophe
  before it (https://owasp.org/www-community/attacks/CSV_Injection); numbers
  and text of numbers are left alone.

  Args:
    cells: None is an empty cell.

  >>> csv_line(["=1+1", -0.5, None, 'a "b", c'])
  '\'=1+1,-0.5,,"a ""b"", c"'
  """
  line = io.StringIO()
  writer = csv.writer(line, lineterminator="")
  writer.writerow([_csv_cell(cell) for cell in cells])
  return line.getvalue()


def _csv_cell(cell: object) -> object:
  if cell is None or isinstance(cell, int | float):
    return cell
  text = str(cell)
  # Judged before escaping, which would hide a leading tab.
  formula = text.startswith(_FORMULA) and not _NUMBERS.fullmatch(text)
  return ("'" if formula else "") + printable(text)


# ValueError: it is closed; RuntimeError: a signal handler writes to a stream
# that is being written to.
_LOST = (OSError, ValueError, RuntimeError)


class SafeStream:
  """A text stream whose reader may leave: what cannot be written is dropped.

  A terminal that was closed and a pipe whose reader has ended must not end the
  work that prints to them.
  """

  def __init__(self, stream: TextIO):
    """Wraps a stream.

    Args:
      stream: such as `sys.stderr`.
    """
    self._stream = stream

  def write(self, text: str) -> int:
    """Writes text if that is possible."""
    with contextlib.suppress(*_LOST):
      self._stream.write(text)
    return len(text)

  def flush(self) -> None:
    """Writes what is buffered if that is possible."""
    with contextlib.suppress(*_LOST):
      self._stream.flush()

  def isatty(self) -> bool:
    """Returns whether it is a terminal."""
    try:
      return self._stream.isatty()
    except (OSError, ValueError):
      return False

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)
