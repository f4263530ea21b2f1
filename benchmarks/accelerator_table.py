"""The table of accelerator.py: tasks, their rows, and the picture."""

import csv
import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import reporting
from matplotlib.figure import Figure
from reporting import Column, Row

from fer_jax import errors

FIELDS = (
  "task",
  "model",
  "dtype",
  "batch_size",
  "steps_per_call",
  "seeds",
  "xla_flags",
  "import_s",
  "first_step_s",
  "step_ms",
  "step_ms_low",
  "step_ms_high",
  "images_per_second",
  "peak_memory_mb",
  "epoch_s",
  "validation_accuracy",
  "note",
  "device",
  "jax",
  "jaxlib",
  "flax",
  "date",
)


@dataclasses.dataclass(frozen=True)
class Task:
  """One measurement.

  Attributes:
    name: identifies it in the table.
    case: what is measured; its fields are columns of the row.
    limit: seconds it may take, and less if less time is left; it is skipped
      when less than this and less than 20 seconds are left.
    xla_flags: set for its process only.
    kind: "step", "train" or "peers".
    cache: what tasks share that use one compilation cache, which the first of
      them fills; they are measured in one call.
  """

  name: str
  case: dict[str, Any]
  limit: float
  xla_flags: str = ""
  kind: str = "step"
  cache: str = ""

  @property
  def group(self) -> str:
    """What is equal for tasks that are measured in one call."""
    return self.cache or self.name


def device_kind() -> str:
  """Returns the device's name, from a process that leaves the device free.

  Raises:
    UserError: JAX finds no device.
  """
  code = "import jax; print(jax.devices()[0].device_kind)"
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True
  )
  if done.returncode:
    reason = (done.stderr.strip() or "no device").splitlines()[-1]
    raise errors.UserError(f"JAX finds no device: {reason}")
  return done.stdout.strip().splitlines()[-1]


class Results:
  """The rows of accelerator.csv, those of earlier calls included.

  Args:
    folder: of the file.
    device: on which the new rows are measured.
  """

  def __init__(self, folder: Path, device: str):
    with reporting.writing(folder):
      folder.mkdir(parents=True, exist_ok=True)
    self._path = folder / "accelerator.csv"
    self._machine = {**reporting.machine(), "device": device}
    self.rows: list[Row] = []
    if self._path.is_file():
      with open(self._path, newline="") as f:
        self.rows = list(csv.DictReader(f))

  def has(self, task: Task) -> bool:
    """Returns whether the task was measured on this device with this JAX."""
    return any(
      self._is_of(row, task)
      and (row["step_ms"] or row["epoch_s"] or row["note"].startswith("see "))
      for row in self.rows
    )

  def add(self, task: Task, row: Row) -> None:
    """Shows a row and writes all of them; it replaces an earlier failure."""
    self.rows = [old for old in self.rows if not self._is_of(old, task)]
    whole = {**self._whole(task), **row}
    self.rows.append({field: whole.get(field, "") for field in FIELDS})
    print(reporting.line(COLUMNS, self.rows[-1]), flush=True)
    reporting.write_csv(self._path, self.rows, FIELDS)

  def _whole(self, task: Task) -> Row:
    """Returns what identifies a task's row, and the machine."""
    named = {"task": task.name, "xla_flags": task.xla_flags}
    return {**task.case, **named, **self._machine}

  def _is_of(self, row: Row, task: Task) -> bool:
    whole = self._whole(task)
    return all(
      str(row[field]) == str(whole.get(field, ""))
      for field in (*FIELDS[: FIELDS.index("import_s")], "device", "jax")
    )

  def finish(self) -> None:
    """Shows this device's rows and draws their picture."""
    print("\n" + reporting.header(COLUMNS))
    here = [
      row
      for row in self.rows
      if all(row[field] == self._machine[field] for field in ("device", "jax"))
    ]
    for row in here:
      print(reporting.line(COLUMNS, row))
    target = self._path.with_suffix(".png")
    with reporting.writing(target.parent):
      picture(here).savefig(target, dpi=150)
    print(f"wrote {self._path} and {target.name}")


def _text(field: str, width: int, title: str = "") -> Column:
  def text(row: Row) -> str:
    return str(row[field] or "-")

  return Column(title or field, width, text, left=field == "task")


COLUMNS = (
  _text("task", 34),
  _text("batch_size", 6, "batch"),
  _text("dtype", 8),
  _text("first_step_s", 12, "1st step, s"),
  _text("step_ms", 9, "step, ms"),
  _text("images_per_second", 10, "images/s"),
  _text("epoch_s", 9, "epoch, s"),
  _text("note", 20),
)


def picture(rows: Sequence[Row]) -> Figure:
  """Draws images per second of every step, with the spread of its turns."""
  steps = [row for row in rows if row["step_ms"]]
  figure = Figure(figsize=(9, 1 + 0.28 * max(len(steps), 3)))
  axes = figure.add_subplot()
  for i, row in enumerate(steps):
    rate = float(row["images_per_second"])
    scale = rate * float(row["step_ms"])
    low = scale / float(row["step_ms_high"])
    high = scale / float(row["step_ms_low"])
    color = "#4c72b0" if row["dtype"] == "bfloat16" else "#dd8452"
    axes.barh(i, rate, color=color, xerr=[[rate - low], [high - rate]])
  labels = [f"{row['task']} (batch {row['batch_size']})" for row in steps]
  axes.set_yticks(range(len(steps)), labels, fontsize=8)
  axes.invert_yaxis()
  axes.set_xlabel("training, images per second (blue bfloat16, orange float32)")
  device = steps[0]["device"] if steps else "no device"
  axes.set_title(f"Training steps on {device}")
  figure.tight_layout()
  return figure
