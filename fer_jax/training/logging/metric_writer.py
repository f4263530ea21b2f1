"""The numbers of a run: `metrics.jsonl` and TensorBoard events.

`metrics.jsonl` holds one object a line, in the order of their steps:

* kind "train", at log steps: `epoch`, `step`, `loss`, `accuracy`,
  `learning_rate`, `images_per_second`;
* kind "epoch", after every epoch: `epoch`, `step`, `train_loss`,
  `train_accuracy`, `validation_loss`, `validation_accuracy`, `learning_rate`,
  `images_per_second`, `seconds`, `best`;
* kind "summary", at the end: what `loop.train` returns.

JSON knows no NaN and no infinity: such values are written as null.
"""

import contextlib
import json
import math
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

from fer_jax.errors import UserError

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
  """Appends to the records of a run.

  Every line is handed to the system before `append` returns: a killed run
  loses at most the line it was writing. A resumed run first drops what the
  killed one recorded beyond the restored step, so that the records are those
  of one uninterrupted run.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    resume_step: int | None,
    write: bool = True,
  ):
    """Opens the records, and drops what is beyond the restored step.

    Args:
      workdir: made if absent.
      resume_step: steps that the restored checkpoint has done; None starts
        anew and drops all there is.
      write: False writes nothing, for processes other than the first.

    Raises:
      UserError: the files cannot be written or hold anything else.
    """
    self._lines: _File | None = None
    self._events: _File | None = None
    if not write:
      return
    path = Path(workdir) / FILE
    last = -1 if resume_step is None else resume_step
    with _explained(path):
      path.parent.mkdir(parents=True, exist_ok=True)
      _keep(path, last)
    self._lines = _File(path)
    # TensorBoard hides what older files hold of this step and later ones.
    start = SessionLog(status=SessionLog.START)
    try:
      self._events = _File(_events_path(path.parent / TENSORBOARD))
      self._events.append(
        _framed(Event(file_version="brain.Event:2"))
        + _framed(Event(step=last + 1, session_log=start))
      )
    except UserError:
      self.close()
      raise

  def append(self, record: Mapping[str, Any]) -> None:
    """Writes one record.

    Args:
      record: `kind` ("train", "epoch" or "summary"), `step`, `epoch` and
        numbers, which may be NumPy or JAX scalars; see the module.

    Raises:
      UserError: it cannot be written.
    """
    if self._lines is None or self._events is None:
      return
    values = {key: _plain(value) for key, value in record.items()}
    line = json.dumps(values, allow_nan=False) + "\n"
    self._lines.append(line.encode())
    events = [
      _framed(Event(step=values["step"], summary=scalar(tag, values[key])))
      for key, tag in _TAGS.get(values["kind"], {}).items()
      if values.get(key) is not None
    ]
    self._events.append(b"".join(events))

  def close(self) -> None:
    """Closes the files; further records are not written."""
    for file in (self._lines, self._events):
      if file is not None:
        file.close()
    self._lines = self._events = None


def read(workdir: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """Reads the records of a run, which may be under way.

  Args:
    workdir: of the run.

  Returns:
    The records in order, none where there is no file yet. A last line that is
    half written is left out.

  Raises:
    UserError: the file cannot be read or a line is not a record.
  """
  path = Path(workdir) / FILE
  try:
    data = path.read_bytes()
  except FileNotFoundError:
    return []
  except OSError as e:
    raise UserError(
      f"cannot read {path}: {e.strerror}; make it a file that you may read"
    ) from e
  return [record for _, record in _parse(path, data)]


def _parse(path: Path, data: bytes) -> Iterator[tuple[bytes, dict[str, Any]]]:
  """Yields the whole lines of a file, and the record that each is."""
  for number, line in enumerate(data.splitlines(keepends=True), start=1):
    if not line.endswith(b"\n"):
      return  # the writer was killed here
    try:
      record = json.loads(line)
      int(record["step"])
    except (ValueError, TypeError, KeyError) as e:
      raise UserError(
        f"line {number} of {path} is not a record: delete that line"
      ) from e
    yield line, record


def _keep(path: Path, step: int) -> None:
  """Drops records beyond a step and a half-written line, all or nothing.

  A summary is dropped too: who goes on writes it anew.
  """
  if not path.exists():
    return
  data = path.read_bytes()
  # A new run drops all, be it what it may.
  kept = (
    b""
    if step < 0
    else b"".join(
      line
      for line, record in _parse(path, data)
      if record["step"] <= step and record["kind"] != "summary"
    )
  )
  if kept == data:
    return
  temporary = path.with_name(path.name + ".tmp")
  temporary.write_bytes(kept)
  os.replace(temporary, path)


def _plain(value: Any) -> Any:
  """A value that JSON has."""
  value = value.item() if hasattr(value, "item") else value
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
  """Turns errors of the file system into ones that say the way out."""
  try:
    yield
  except OSError as e:
    raise UserError(
      f"cannot write {path}: {e.strerror or e}; make room or choose another"
      " --workdir, then start again: a run goes on from its last checkpoint"
    ) from e


class _File:
  """A file that is appended to, without a buffer or a thread.

  tensorboardX's own writer hands events to a thread, which dies of a full disk
  and leaves training waiting for its queue; and it syncs the disk each time.
  """

  def __init__(self, path: Path):
    """Opens the file, in a folder that is made if absent."""
    self._path = path
    with _explained(path):
      path.parent.mkdir(exist_ok=True)
      self._file = open(path, "ab", buffering=0)

  def append(self, data: bytes) -> None:
    rest = memoryview(data)
    with _explained(self._path):
      while rest:  # a disk that is nearly full takes a part
        rest = rest[self._file.write(rest) :]

  def close(self) -> None:
    self._file.close()


def _events_path(folder: Path) -> Path:
  """A new file of events: TensorBoard sorts the names, and so the starts."""
  now = time.time_ns()
  return folder / (
    f"events.out.tfevents.{now // 10**9}.{socket.gethostname()}.{now}"
  )


def _framed(event: Event) -> bytes:
  """An event as a TFRecord: length, data and a checksum of each."""
  event.wall_time = time.time()
  data = event.SerializeToString()
  length = struct.pack("<Q", len(data))
  return b"".join((length, _checksum(length), data, _checksum(data)))


def _checksum(data: bytes) -> bytes:
  return struct.pack("<I", masked_crc32c(data))
