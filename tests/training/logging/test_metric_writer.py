"""Tests of fer_jax.training.logging.metric_writer."""

import builtins
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from fer_jax.errors import UserError
from fer_jax.training.logging import metric_writer
from fer_jax.training.logging.metric_writer import MetricWriter


def _train(step: int, epoch: int = 1, **values: Any) -> dict[str, Any]:
  return {
    "kind": "train",
    "epoch": epoch,
    "step": step,
    "loss": 1 / step,
    "accuracy": 0.5,
    "learning_rate": 1e-3,
    "images_per_second": 351.0,
    **values,
  }


def _epoch(step: int, epoch: int = 1) -> dict[str, Any]:
  return {
    "kind": "epoch",
    "epoch": epoch,
    "step": step,
    "train_loss": 1.5,
    "train_accuracy": 0.5,
    "validation_loss": 1.25,
    "validation_accuracy": 0.625,
    "learning_rate": 1e-3,
    "images_per_second": 351.0,
    "seconds": 82.0,
    "best": True,
  }


def _write(
  workdir: Path, resume_step: int | None, rows: list[dict[str, Any]]
) -> None:
  writer = MetricWriter(workdir, resume_step)
  try:
    for row in rows:
      writer.append(row)
  finally:
    writer.close()


def _events(path: Path) -> list[Event]:
  """The events of a file, their checksums checked."""
  data, events = path.read_bytes(), []
  while data:
    (length,) = struct.unpack("<Q", data[:8])
    checks = struct.unpack("<I", data[8:12]) + struct.unpack(
      "<I", data[12 + length : 16 + length]
    )
    body = data[12 : 12 + length]
    assert checks == (masked_crc32c(data[:8]), masked_crc32c(body))
    events.append(Event.FromString(body))
    data = data[16 + length :]
  return events


def _scalars(workdir: Path) -> list[tuple[str, int, float]]:
  """What TensorBoard would show: later starts hide what they redo."""
  shown: list[tuple[str, int, float]] = []
  for path in sorted((workdir / "tensorboard").iterdir()):
    for event in _events(path):
      if event.HasField("session_log"):
        shown = [row for row in shown if row[1] < event.step]
      for value in event.summary.value:
        shown.append((value.tag, event.step, value.simple_value))
  return shown


def test_what_is_written_is_read(tmp_path: Path) -> None:
  rows = [_train(10), _train(20), _epoch(20)]
  _write(tmp_path / "new" / "run", None, rows)
  assert metric_writer.read(tmp_path / "new" / "run") == rows


def test_no_file_has_no_records(tmp_path: Path) -> None:
  assert metric_writer.read(tmp_path) == []


def test_a_resumed_run_is_as_an_uninterrupted_one(tmp_path: Path) -> None:
  rows = [_train(10), _epoch(15), _train(20, 2), _epoch(30, 2)]
  _write(tmp_path / "whole", None, rows)
  _write(tmp_path / "torn", None, [*rows[:3], _train(25, 2, loss=9.0)])
  with open(tmp_path / "torn" / metric_writer.FILE, "a") as file:
    file.write('{"kind": "epo')
  _write(tmp_path / "torn", 15, rows[2:])
  whole, torn = tmp_path / "whole", tmp_path / "torn"
  assert (torn / metric_writer.FILE).read_bytes() == (
    whole / metric_writer.FILE
  ).read_bytes()
  assert sorted(_scalars(torn)) == sorted(_scalars(whole))
  assert not list(torn.glob("*.tmp"))


def test_nothing_is_lost_where_nothing_is_beyond(tmp_path: Path) -> None:
  _write(tmp_path, None, [_train(10), _epoch(15)])
  before = (tmp_path / metric_writer.FILE).stat()
  _write(tmp_path, 15, [])
  after = (tmp_path / metric_writer.FILE).stat()
  assert (before.st_ino, before.st_size) == (after.st_ino, after.st_size)


def test_a_run_anew_drops_all(tmp_path: Path) -> None:
  _write(tmp_path, None, [_train(10)])
  _write(tmp_path, None, [_train(20)])
  assert metric_writer.read(tmp_path) == [_train(20)]
  assert {step for _, step, _ in _scalars(tmp_path)} == {20}


def test_a_failed_replacement_leaves_the_file(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  _write(tmp_path, None, [_train(10), _train(20)])

  def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")

  with monkeypatch.context() as patched:
    patched.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"metrics\.jsonl: No space left"):
      MetricWriter(tmp_path, 10)
  assert len(metric_writer.read(tmp_path)) == 2


def test_tags_and_values_of_tensorboard(tmp_path: Path) -> None:
  _write(tmp_path, None, [_train(10), _epoch(15)])
  (path,) = (tmp_path / "tensorboard").iterdir()
  assert "tfevents" in path.name
  assert _events(path)[0].file_version == "brain.Event:2"
  assert _scalars(tmp_path) == [
    ("train/loss", 10, pytest.approx(0.1)),
    ("train/accuracy", 10, 0.5),
    ("learning_rate", 10, pytest.approx(1e-3)),
    ("images_per_second", 10, 351.0),
    ("validation/loss", 15, 1.25),
    ("validation/accuracy", 15, 0.625),
  ]


def test_numbers_that_json_lacks_are_null(tmp_path: Path) -> None:
  row = _train(
    10,
    loss=float("nan"),
    accuracy=np.float32("inf"),
    learning_rate=jnp.float32(0.5),
    images_per_second=None,
    seen=np.int64(3),
    best=np.bool_(True),
  )
  _write(tmp_path, None, [row])
  text = (tmp_path / metric_writer.FILE).read_text()
  assert json.loads(text, parse_constant=pytest.fail) == {
    "kind": "train",
    "epoch": 1,
    "step": 10,
    "loss": None,
    "accuracy": None,
    "learning_rate": 0.5,
    "images_per_second": None,
    "seen": 3,
    "best": True,
  }
  assert _scalars(tmp_path) == [("learning_rate", 10, 0.5)]


def test_other_processes_write_nothing(tmp_path: Path) -> None:
  writer = MetricWriter(tmp_path, None, write=False)
  writer.append(_train(1))
  writer.close()
  assert list(tmp_path.iterdir()) == []


def test_a_killed_run_keeps_its_lines(tmp_path: Path) -> None:
  code = (
    "import os, signal, sys\n"
    "from fer_jax.training.logging.metric_writer import MetricWriter\n"
    "assert 'torch' not in sys.modules and 'tensorflow' not in sys.modules\n"
    f"records = MetricWriter({str(tmp_path)!r}, None)\n"
    "for step in range(1, 6):\n"
    "  records.append({'kind': 'train', 'epoch': 1, 'step': step, 'loss': 1})\n"
    "os.kill(os.getpid(), signal.SIGKILL)\n"
  )
  done = subprocess.run([sys.executable, "-c", code], timeout=60)
  assert done.returncode == -signal.SIGKILL
  assert [row["step"] for row in metric_writer.read(tmp_path)] == [
    1,
    2,
    3,
    4,
    5,
  ]
  assert [step for _, step, _ in _scalars(tmp_path)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ["metrics.jsonl", "tfevents"])
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_named(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
  real: Callable[..., Any] = builtins.open

  def opened(path: Any, *args: Any, **kwargs: Any) -> Any:
    full = name in str(path)
    return real("/dev/full" if full else path, *args, **kwargs)

  monkeypatch.setattr(builtins, "open", opened)
  message = f"{name}.*No space left.*free some space"
  if name == "tfevents":
    with pytest.warns(FutureWarning, match=f"no TensorBoard.*{message}"):
      _write(tmp_path, None, [_train(1)])
    assert len(metric_writer.read(tmp_path)) == 1
    return
  with pytest.raises(UserError, match=message) as e:
    _write(tmp_path, None, [_train(1)])
  assert "\n" not in str(e.value)


def test_a_workdir_that_is_a_file(tmp_path: Path) -> None:
  (tmp_path / "run").write_text("")
  with pytest.raises(UserError, match="cannot write .*run"):
    MetricWriter(tmp_path / "run", None)


def test_lines_of_another_kind_are_named(tmp_path: Path) -> None:
  path = tmp_path / metric_writer.FILE
  path.write_text('{"kind": "train", "step": 1}\nhello\n')
  with pytest.raises(UserError, match=r"line 2 of .*metrics\.jsonl"):
    metric_writer.read(tmp_path)
  with pytest.raises(UserError, match=r"line 2 of .*metrics\.jsonl"):
    MetricWriter(tmp_path, 1)
