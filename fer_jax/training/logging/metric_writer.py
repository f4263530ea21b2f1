"""Metric files of a run: `metrics.jsonl` and TensorBoard events.

`metrics.jsonl` holds one JSON object per line, in the order of the steps:

* kind "train", at log steps: `epoch`, `step`, `loss`, `accuracy`,
  `learning_rate`, `images_per_second`;
* kind "epoch", after every evaluation: `epoch`, `step`, `train_loss`,
  `train_accuracy`, `validation_loss`, `validation_accuracy`, `learning_rate`,
  `images_per_second`, `seconds`, `best`;
* kind "summary", at the end: the best epoch and its metrics;
* kind "warning": `epoch`, `step` and `message`, such as a damaged checkpoint.

JSON has no NaN and no infinity: they are written as null.
"""

import contextlib
import json
import math
import os
import socket
import struct
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fer_jax.errors import UserError
from fer_jax.files import atomic_write
from fer_jax.object_stores.objects import read_file
from fer_jax.object_stores.urls import to_path
from fer_jax.training.logging.tensorboard_events import (
  Event,
  SessionLog,
  masked_crc32c,
  scalar,
)

FILE = "metrics.jsonl"
TENSORBOARD = "tensorboard"

# What TensorBoard shows, by kind: key of the record -> tag.
_TAGS = {
  "train": {
    "loss": "train/loss",
    "accuracy": "train/accuracy",
    "learning_rate": "learning_rate",
    "images_per_second": "images_per_second",
  },
  "epoch": {
    "validation_loss": "validation/loss",
    "validation_accuracy": "validation/accuracy",
  },
}


class MetricWriter:
  """Appends to the metric files of a run.

  Every line is passed to the system before `append` returns: a killed run
  loses at most the line it was writing. A resumed run first removes records
  after the restored step, so that the file is that of an uninterrupted run.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    resume_step: int | None,
    resume_epoch: float = math.inf,
    write: bool = True,
  ):
    """Opens the files, and removes records after the restored step.

    Args:
      workdir: created if it does not exist.
      resume_step: the step of the restored checkpoint; None removes all
        records.
      resume_epoch: number of finished epochs in that checkpoint, which may be
        one less than the records tell: an epoch is recorded before it is saved.
      write: whether anything is written: only by the first process.

    Raises:
      UserError: the files cannot be written, or have other content.
    """
    self._lines: _File | None = None
    self._events: _File | None = None
    if not write:
      return
    path = Path(workdir) / FILE
    last = -1 if resume_step is None else resume_step
    with _explained(path):
      path.parent.mkdir(parents=True, exist_ok=True)
      _keep(path, last, resume_epoch)
    self._lines = _File(path)
    # TensorBoard hides what older files hold of this step and later ones.
    start = SessionLog(status=SessionLog.START)
    header = _framed(Event(file_version="brain.Event:2")) + _framed(
      Event(step=last + 1, session_log=start)
    )
    try:
      self._events = _File(_events_path(path.parent / TENSORBOARD))
      self._events.append(header)
    except UserError as e:
      # Nothing is lost without TensorBoard.
      self._stop_events(e)

  def append(self, record: Mapping[str, Any]) -> None:
    """Writes one record.

    Args:
      record: `kind` ("train", "epoch", "summary" or "warning"), `step`, `epoch`
        and more, where numbers may be NumPy or JAX scalars; see the module's
        docstring.

    Raises:
      UserError: it cannot be written.
    """
    if self._lines is None:
      return
    values = {key: _plain(value) for key, value in record.items()}
    line = json.dumps(values, allow_nan=False) + "\n"
    self._lines.append(line.encode())
    events = [
      _framed(Event(step=values["step"], summary=scalar(tag, values[key])))
      for key, tag in _TAGS.get(values["kind"], {}).items()
      if values.get(key) is not None
    ]
    try:
      if self._events is not None:
        self._events.append(b"".join(events))
    except UserError as e:
      self._stop_events(e)

  def contents(self) -> bytes:
    """Returns what metrics.jsonl holds, even if it was removed."""
    return self._lines.contents() if self._lines else b""

  def _stop_events(self, error: UserError) -> None:
    """Goes on without TensorBoard's file, which cannot be written."""
    if self._events is not None:
      self._events.close()
      self._events = None
    warnings.warn(f"no TensorBoard: {error}", FutureWarning, stacklevel=3)

  def close(self) -> None:
    """Closes the files; later records are not written."""
    for file in (self._lines, self._events):
      if file is not None:
        file.close()
    self._lines = self._events = None


def read(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Reads the records of a run, which may still be training.

  Args:
    workdir: the run's folder, or its URL on an object store.

  Returns:
    The records in order; none if there is no file. An incomplete last line is
    ignored.

  Raises:
    UserError: the file cannot be read, or a line is not a record.
  """
  path = to_path(workdir) / FILE
  try:
    data = read_file(path)
  except OSError as e:
    raise UserError(
      f"cannot read {path}: {e.strerror}; check its permissions"
    ) from e
  return [record for _, record in _parse(path, data or b"")]


def _parse(path: Path, data: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
  """Yields each complete line of a file with its record."""
  for number, line in enumerate(data.splitlines(keepends=True), start=1):
    if not line.endswith(b"\n"):
      return  # The writer was killed here.
    try:
      record = json.loads(line)
      int(record["step"])
      str(record["kind"])
    except (ValueError, TypeError, KeyError) as e:
      raise UserError(
        f"line {number} of {path} is not a record: delete that line"
      ) from e
    yield line, record


def _keep(path: Path, step: int, epoch: float) -> None:
  """Atomically removes later records, summaries and incomplete lines."""
  if not path.exists():
    return

  def goes(record: Mapping[str, Any]) -> bool:
    kind = record["kind"]
    ends_later = kind == "epoch" and record["epoch"] > epoch
    return ends_later or kind == "summary" or record["step"] > step

  data = path.read_bytes()
  # A new run removes everything, whatever it is.
  records = _parse(path, data) if step >= 0 else ()
  kept = b"".join(line for line, record in records if not goes(record))
  if kept == data:
    return
  with atomic_write(path) as draft:
    draft.write_bytes(kept)


def _plain(value: Any) -> Any:
  """Returns a value as JSON can hold it."""
  value = value.item() if hasattr(value, "item") else value
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
  """Turns errors of the file system into a UserError that says what to do."""
  try:
    yield
  except OSError as e:
    raise UserError(
      f"cannot write {path}: {e.strerror or e}; free some space or use another"
      " workdir; the run resumes from its last checkpoint"
    ) from e


class _File:
  """A file that is appended to, without a buffer or a thread.

  tensorboardX's own writer passes events to a thread, which ends when the disk
  is full and blocks training on its queue; and it syncs the disk each time.
  """

  def __init__(self, path: Path):
    """Opens the file, and creates its folder."""
    self._path = path
    self._unwritten = b""  # what a full disk did not take yet
    with _explained(path):
      path.parent.mkdir(exist_ok=True)
      self._file = open(path, "a+b", buffering=0)

  def append(self, data: bytes) -> None:
    """Writes data; what cannot be written is tried again the next time."""
    self._unwritten += data
    with _explained(self._path):
      if os.fstat(self._file.fileno()).st_nlink == 0:
        self._restore()
      while self._unwritten:  # A disk that is nearly full writes a part.
        written = self._file.write(self._unwritten)
        self._unwritten = self._unwritten[written:]

  def contents(self) -> bytes:
    """Returns what was written, even if the file was removed."""
    self._file.seek(0)
    return self._file.read()

  def _restore(self) -> None:
    """Writes the file again that another program removed."""
    if not self._path.exists():
      with atomic_write(self._path) as draft:
        draft.write_bytes(self.contents())
      warnings.warn(
        f"{self._path} was removed while the run wrote to it: its contents were"
        " written again",
        FutureWarning,
        stacklevel=4,
      )
    removed, self._file = self._file, open(self._path, "a+b", buffering=0)
    removed.close()

  def close(self) -> None:
    self._file.close()


def _events_path(folder: Path) -> Path:
  """Returns a new file of events; TensorBoard sorts them by name."""
  now = time.time_ns()
  return folder / (
    f"events.out.tfevents.{now // 10**9}.{socket.gethostname()}.{now}"
  )


def _framed(event: Event) -> bytes:
  """Returns an event as a TFRecord: length, data and their checksums."""
  event.wall_time = time.time()
  data = event.SerializeToString()
  length = struct.pack("<Q", len(data))
  return b"".join((length, _checksum(length), data, _checksum(data)))


def _checksum(data: bytes) -> bytes:
  return struct.pack("<I", masked_crc32c(data))
