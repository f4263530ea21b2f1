"""What benchmark commands share: tables, progress and the files they write."""

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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from fer_jax import __version__, errors, models

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Column:
  """A column of a table for people.

  Attributes:
    title: its head.
    width: in characters.
    text: what stands there for a row.
    left: whether it is flush left.
  """

  title: str
  width: int
  text: Callable[[Row], str]
  left: bool = False

  def cell(self, text: str) -> str:
    """The text, as wide as the column."""
    return text.ljust(self.width) if self.left else text.rjust(self.width)


def header(columns: Sequence[Column]) -> str:
  """The table's first line."""
  return "  ".join(column.cell(column.title) for column in columns).rstrip()


def line(columns: Sequence[Column], row: Row) -> str:
  """The line of a row."""
  cells = (column.cell(column.text(row)) for column in columns)
  return "  ".join(cells).rstrip()


class Table:
  """Rows that are shown and written as they come, so that none is lost.

  Args:
    columns: of what is shown; the file has all that rows have.
    folder: where NAME.csv goes, and the picture NAME.png; made if need be.
    name: of the files.

  Raises:
    UserError: the folder cannot be written.
  """

  def __init__(self, columns: Sequence[Column], folder: str, name: str):
    self.rows: list[Row] = []
    self._columns = columns
    self._folder = Path(folder)
    self._name = name
    with self._told():
      self._folder.mkdir(parents=True, exist_ok=True)
      if not os.access(self._folder, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

  def add(self, rows: Sequence[Row]) -> None:
    """Shows and writes rows; all have the same keys."""
    if not self.rows:
      print(header(self._columns))
    for row in rows:
      print(line(self._columns, row), flush=True)
    self.rows += rows
    with self._told():
      with open(self._path("csv"), "w", newline="") as f:
        writer = csv.DictWriter(f, list(self.rows[0]))
        writer.writeheader()
        writer.writerows(self.rows)

  def finish(self, picture: Callable[[Sequence[Row]], Figure]) -> None:
    """Draws the rows, and says where all is.

    Raises:
      UserError: there are none.
    """
    if not self.rows:
      raise errors.UserError("nothing could be measured")
    with self._told():
      picture(self.rows).savefig(self._path("png"), dpi=150)
    print(f"wrote {self._path('csv')} and {self._path('png').name}")

  def _path(self, ending: str) -> Path:
    return self._folder / f"{self._name}.{ending}"

  @contextlib.contextmanager
  def _told(self) -> Iterator[None]:
    try:
      yield
    except OSError as e:
      raise errors.UserError(
        f"cannot write --output={self._folder}: {e.strerror or e};"
        " give another folder"
      ) from e


def progress(text: str) -> None:
  """Shows what is being measured, on a terminal; "" clears it."""
  if sys.stderr.isatty():
    print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def left_out(name: str, why: object) -> None:
  """Says that something is not measured."""
  progress("")
  print(f"{name} is left out: {why}", flush=True)


def named_models(patterns: Sequence[str]) -> list[str]:
  """The models that names and patterns stand for, in the order given.

  Raises:
    UserError: one stands for none.
  """
  names: list[str] = []
  for pattern in patterns:
    found = fnmatch.filter(models.list_models(), pattern)
    if not found:
      errors.choose("model", pattern, models.list_models())
    names += [name for name in found if name not in names]
  return names


def whole_numbers(flag: str, values: Sequence[str]) -> list[int]:
  """Reads a flag that is a list of numbers from 1 on.

  Raises:
    UserError: it is not.
  """
  for value in values:
    if not value.isdecimal() or int(value) < 1:
      raise errors.UserError(
        f"--{flag}={value} must be a whole number, 1 or more"
      )
  if not values:
    raise errors.UserError(f"--{flag} is empty: give a whole number")
  return [int(value) for value in values]


def chosen(
  flag: str, values: Sequence[str], choices: Sequence[str]
) -> list[str]:
  """Checks a flag that is a list of choices.

  Raises:
    UserError: one is unknown, or there is none.
  """
  if not values:
    raise errors.UserError(f"--{flag} is empty: give {', '.join(choices)}")
  return [errors.choose(f"--{flag}", value, choices) for value in values]


def machine(*packages: str) -> dict[str, str]:
  """What was measured on and when, for the rows of a table.

  Args:
    *packages: whose versions count beside those of jax and flax.
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
  """The processor's name and threads, or what the platform says of it."""
  name = platform.processor() or platform.machine()
  info = Path("/proc/cpuinfo")
  if info.is_file():
    for text in info.read_text().splitlines():
      if text.startswith("model name"):
        name = text.partition(":")[2].strip()
        break
  return f"{name}, {physical_cores()} cores"


def physical_cores() -> int:
  """Cores that this process may use, two threads of one counted once."""
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
