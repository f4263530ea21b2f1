"""Tables, progress and files of the benchmark commands."""

import contextlib
import csv
import dataclasses
import datetime
import errno
import fnmatch
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from matplotlib.figure import Figure

from fer_jax import __version__, errors, files, models

Row = dict[str, Any]
HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"  # committed tables
OUTPUT = HERE / "out"  # ignored by git


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of a printed table.

  Attributes:
    title: header of the column.
    width: width in characters.
    text: returns the cell of a row.
    left: whether cells are aligned to the left.
  """

  title: str
  width: int
  text: Callable[[Row], str]
  left: bool = False

  def cell(self, text: str) -> str:
    """Returns the text, padded to the width of the column."""
    return text.ljust(self.width) if self.left else text.rjust(self.width)


def header(columns: Sequence[Column]) -> str:
  """Returns the first line of the table."""
  return "  ".join(column.cell(column.title) for column in columns).rstrip()


def line(columns: Sequence[Column], row: Row) -> str:
  """Returns the line of a row."""
  cells = (column.cell(column.text(row)) for column in columns)
  return "  ".join(cells).rstrip()


def define_output() -> None:
  """Defines the flag `output`, by default not the committed tables' folder."""
  flags.DEFINE_string("output", str(OUTPUT), "Folder of the tables and plots.")


@contextlib.contextmanager
def writing(folder: str | Path) -> Iterator[None]:
  """Turns errors of writing into this folder into a UserError."""
  try:
    yield
  except OSError as e:
    raise errors.UserError(
      f"cannot write output={folder}: {e.strerror or e}; choose another folder"
    ) from e


def write_csv(
  path: Path, rows: Iterable[Mapping[str, Any]], fields: Sequence[str]
) -> None:
  """Replaces a CSV file as a whole.

  Args:
    path: of the file.
    rows: its rows.
    fields: its columns; other values of the rows are left out.

  Raises:
    UserError: it cannot be written.
  """
  with writing(path.parent), files.atomic_write(path, parents=True) as new:
    with open(new, "w", newline="") as f:
      writer = csv.DictWriter(f, fields, extrasaction="ignore")
      writer.writeheader()
      writer.writerows(rows)


class Table:
  """A table whose rows are printed and written to a CSV file immediately.

  Args:
    columns: columns to print; the file has all values of the rows.
    folder: folder of NAME.csv and of the plot NAME.png, created if necessary.
    name: name of the files.

  Raises:
    UserError: the folder cannot be written.
  """

  def __init__(self, columns: Sequence[Column], folder: str, name: str):
    self.rows: list[Row] = []
    self._columns = columns
    self._folder = Path(folder)
    self._name = name
    with writing(self._folder):
      self._folder.mkdir(parents=True, exist_ok=True)
      if not os.access(self._folder, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

  def add(self, rows: Sequence[Row]) -> None:
    """Prints and writes rows, which must have equal keys."""
    if not self.rows:
      print(header(self._columns))
    for row in rows:
      print(line(self._columns, row), flush=True)
    self.rows += rows
    write_csv(self._path("csv"), self.rows, list(self.rows[0]))

  def finish(
    self, picture: Callable[[Sequence[Row]], Figure] | None = None
  ) -> None:
    """Draws the rows and prints the names of the files.

    Args:
      picture: draws them; None for no plot.

    Raises:
      UserError: there are no rows.
    """
    if not self.rows:
      raise errors.UserError("nothing could be measured")
    written = str(self._path("csv"))
    if picture:
      with writing(self._folder):
        picture(self.rows).savefig(self._path("png"), dpi=150)
      written += f" and {self._path('png').name}"
    print(f"wrote {written}")

  def _path(self, ending: str) -> Path:
    return self._folder / f"{self._name}.{ending}"


def progress(text: str) -> None:
  """Shows the current measurement on a terminal; "" clears it."""
  if sys.stderr.isatty():
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def skip(name: str, reason: object) -> None:
  """Prints that something is not measured."""
  progress("")
  print(f"{name} is skipped: {reason}", flush=True)


def named_models(patterns: Sequence[str]) -> list[str]:
  """Returns the models that match names or patterns, in the given order.

  Raises:
    UserError: a name or pattern matches no model.
  """
  names: list[str] = []
  for pattern in patterns:
    found = fnmatch.filter(models.list_models(), pattern)
    if not found:
      errors.choose("model", pattern, models.list_models())
    names += [name for name in found if name not in names]
  return names


def whole_numbers(flag: str, values: Sequence[str]) -> list[int]:
  """Parses a list of positive integers.

  Raises:
    UserError: a value is not a positive integer, or the list is empty.
  """
  for value in values:
    if not value.isdecimal() or int(value) < 1:
      raise errors.UserError(f"{flag}={value} must be a positive integer")
  if not values:
    raise errors.UserError(f"{flag} is empty: give a positive integer")
  return [int(value) for value in values]


def chosen(
  flag: str, values: Sequence[str], choices: Sequence[str]
) -> list[str]:
  """Checks a list of choices.

  Raises:
    UserError: a value is unknown, or the list is empty.
  """
  if not values:
    raise errors.UserError(f"{flag} is empty: choose {', '.join(choices)}")
  return [errors.choose(flag, value, choices) for value in values]


def machine(*packages: str) -> dict[str, str]:
  """Returns the machine, the date and the versions, for the rows of a table.

  Args:
    *packages: packages whose versions matter, besides jax and flax.
  """
  versions = {}
  for package in ("jax", "jaxlib", "flax", *packages):
    try:
      versions[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      versions[package] = ""
  return {
    "date": datetime.date.today().isoformat(),
    "machine": _processor(),
    "python": platform.python_version(),
    "fer_jax": __version__,
    **versions,
  }


def _processor() -> str:
  """Returns the name of the processor and its number of cores."""
  name = platform.processor() or platform.machine()
  info = Path("/proc/cpuinfo")
  if info.is_file():
    for text in info.read_text().splitlines():
      if text.startswith("model name"):
        name = text.partition(":")[2].strip()
        break
  return f"{name}, {physical_cores()} cores"


def physical_cores() -> int:
  """Returns the number of physical cores that this process may use."""
  if not hasattr(os, "sched_getaffinity"):
    return os.cpu_count() or 1
  allowed = os.sched_getaffinity(0)
  siblings = set()
  for cpu in allowed:
    path = Path(
      f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
    )
    try:
      siblings.add(path.read_text().strip())
    except OSError:
      siblings.add(str(cpu))
  return len(siblings)
