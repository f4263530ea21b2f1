"""Tests of fer_jax.training.logging.progress."""

import io
import os
import time

import pytest

from fer_jax.training.logging.progress import Progress


class Clock:
  """A clock that is set by hand."""

  def __init__(self) -> None:
    self.now = 100.0

  def __call__(self) -> float:
    """Returns seconds."""
    return self.now


class Terminal(io.StringIO):
  """A file that says it is a terminal."""

  def isatty(self) -> bool:
    """Always."""
    return True


def _progress(
  file: io.StringIO, num_epochs: int = 3, show: bool = True
) -> tuple[Progress, Clock]:
  clock = Clock()
  progress = Progress(num_epochs, 10, 32, file=file, show=show, clock=clock)
  return progress, clock


def _steps(progress: Progress, clock: Clock, times: list[float]) -> None:
  """Calls of one step each, of so many seconds."""
  for seconds in times:
    clock.now += seconds
    progress.update(1)


METRICS = {
  "train_loss": 1.5,
  "train_accuracy": 0.5,
  "validation_loss": 1.25,
  "validation_accuracy": 0.625,
}


def test_speed_is_without_the_first_call() -> None:
  progress, clock = _progress(io.StringIO())
  progress.start_epoch(1)
  assert progress.images_per_second is None
  _steps(progress, clock, [60.0])  # compiles
  assert progress.images_per_second is None
  _steps(progress, clock, [0.5, 0.5])
  assert progress.images_per_second == pytest.approx(64)


def test_speed_is_without_evaluation_and_saving() -> None:
  progress, clock = _progress(io.StringIO())
  progress.start_epoch(1)
  _steps(progress, clock, [60.0, 0.5])
  progress.pause()
  clock.now += 7  # a checkpoint in mid-epoch
  progress.resume()
  _steps(progress, clock, [0.5])
  progress.pause()
  progress.pause()
  clock.now += 20
  progress.end_epoch(METRICS)
  clock.now += 5
  assert progress.images_per_second == pytest.approx(64)
  progress.start_epoch(2)
  _steps(progress, clock, [0.25] * 2)
  assert progress.images_per_second == pytest.approx(4 * 32 / 1.5)
  progress.close()
  assert progress.epoch_images_per_second == pytest.approx(128)
  clock.now += 100
  assert progress.images_per_second == pytest.approx(4 * 32 / 1.5)


def test_speed_is_without_the_calls_that_the_device_has_yet_to_compute() -> (
  None
):
  progress, clock = _progress(io.StringIO(), num_epochs=2)
  for epoch in (1, 2):
    progress.start_epoch(epoch)
    # Four calls return at once; then each waits for one that was computed.
    _steps(progress, clock, [0.0] * 4 + [1.0])
    progress.settle()
    _steps(progress, clock, [1.0] * 3)
    assert progress.epoch_images_per_second == pytest.approx(32)
    progress.settle()
    _steps(progress, clock, [1.0] * 2)
    assert progress.epoch_images_per_second == pytest.approx(32)
    clock.now += 4  # The last four are computed.
    progress.pause()
    images = (9 if epoch == 1 else 10) * 32
    assert progress.epoch_images_per_second == pytest.approx(images / 10)


def test_updates_while_paused_are_not_counted() -> None:
  progress, clock = _progress(io.StringIO())
  progress.start_epoch(1)
  progress.pause()
  _steps(progress, clock, [60.0])
  progress.resume()
  _steps(progress, clock, [0.5])
  assert progress.images_per_second == pytest.approx(64)


def test_time_left_is_of_the_whole_run() -> None:
  progress, clock = _progress(io.StringIO())
  progress.start_epoch(1)
  _steps(progress, clock, [60.0])
  assert progress.seconds_left is None
  _steps(progress, clock, [0.5] * 4)
  assert progress.seconds_left == pytest.approx(25 * 0.5)
  _steps(progress, clock, [0.5] * 5)
  progress.pause()
  clock.now += 3
  progress.end_epoch(METRICS)
  clock.now += 1
  progress.start_epoch(2)
  assert progress.seconds_left == pytest.approx(20 * 0.5 + 2 * 4)


def test_resumed_in_mid_epoch() -> None:
  file = io.StringIO()
  progress, clock = _progress(file)
  progress.start_epoch(3, step_in_epoch=6)
  _steps(progress, clock, [60.0, 0.5])
  assert progress.seconds_left == pytest.approx(2 * 0.5)
  progress.log({"loss": 1.0, "accuracy": 1.0})
  assert file.getvalue() == (
    "epoch 3/3 step 8/10 loss 1.0000 accuracy 100.0% 64 images/s 00:01 left\n"
  )


def test_plain_lines_where_there_is_no_terminal() -> None:
  file = io.StringIO()
  progress, clock = _progress(file, num_epochs=12)
  progress.start_epoch(1)
  _steps(progress, clock, [60.0])
  progress.log({"loss": 1.23456, "accuracy": 0.521})
  _steps(progress, clock, [5.0])
  progress.log({"loss": float("nan"), "accuracy": None})
  progress.write("saved")
  progress.end_epoch({**METRICS, "best": True})
  progress.start_epoch(2)
  progress.end_epoch({"train_loss": 1.0, "seconds": 83, "best": False})
  assert file.getvalue().splitlines() == [
    "epoch 1/12 step 1/10 loss 1.2346 accuracy 52.1%",
    "epoch 1/12 step 2/10 loss nan 6.4 images/s 09:50 left",
    "saved",
    "epoch  1/12  train loss 1.5000 accuracy 50.0%"
    "  validation loss 1.2500 accuracy 62.5%  01:05  6.4 images/s  best",
    "epoch  2/12  train loss 1.0000  01:23",
  ]
  assert "\r" not in file.getvalue()


def test_one_line_in_place_on_a_terminal() -> None:
  file = Terminal()
  progress, clock = _progress(file)
  progress.start_epoch(1)
  _steps(progress, clock, [60.0])
  progress.log({"loss": 1.5, "accuracy": 0.5})  # too early to be redrawn
  _steps(progress, clock, [0.5])
  assert "\n" not in file.getvalue()
  line = file.getvalue().split("\r")[-1]
  assert line.startswith(
    "epoch 1/3 step 2/10 loss 1.5000 accuracy 50.0% 64 images/s 00:14 left |"
  )
  assert len(line) < 80
  progress.write("a line")
  progress.end_epoch({**METRICS, "best": True})
  progress.close()
  progress.close()
  shown = [line.split("\r")[-1] for line in file.getvalue().split("\n")]
  assert shown[0] == "a line"
  assert shown[1].startswith("epoch 1/3  train loss 1.5000")
  assert shown[1].endswith("best")
  assert shown[2:] == [""]


def test_a_terminal_of_unknown_size(monkeypatch: pytest.MonkeyPatch) -> None:
  size = os.terminal_size((0, 0))
  monkeypatch.setattr(os, "get_terminal_size", lambda *_: size)
  monkeypatch.setattr(Terminal, "fileno", lambda _: 2)
  file = Terminal()
  progress, _ = _progress(file)
  progress.start_epoch(1)
  progress.close()
  assert "epoch 1/3 step 0/10 |" in file.getvalue()


def test_the_line_is_redrawn_only_so_often() -> None:
  file = Terminal()
  progress, clock = _progress(file)
  progress.start_epoch(1)
  _steps(progress, clock, [1.0])
  drawn = file.getvalue()
  _steps(progress, clock, [0.001] * 5)
  assert file.getvalue() == drawn
  _steps(progress, clock, [1.0])
  assert "step 7/10" in file.getvalue()
  progress.close()


def test_other_processes_show_nothing() -> None:
  file = Terminal()
  progress, clock = _progress(file, show=False)
  progress.start_epoch(1)
  _steps(progress, clock, [60.0, 0.5])
  progress.log({"loss": 1.0})
  progress.write("a line")
  progress.end_epoch(METRICS)
  progress.close()
  assert file.getvalue() == ""
  assert progress.images_per_second == pytest.approx(64)


def test_stderr_is_looked_up_when_made(capsys: pytest.CaptureFixture) -> None:
  Progress(1, 1, 1).write("a line")
  assert capsys.readouterr().err == "a line\n"


@pytest.mark.parametrize("file", [io.StringIO(), Terminal()])
def test_update_is_cheap(file: io.StringIO) -> None:
  progress = Progress(1, 10**6, 32, file=file)
  progress.start_epoch(1)
  start = time.perf_counter()
  for _ in range(10_000):
    progress.update(1)
  seconds = (time.perf_counter() - start) / 10_000
  progress.close()
  assert seconds < 50e-6  # a few microseconds, with room for a busy machine


def test_compiling_is_neither_speed_nor_time_left() -> None:
  file = io.StringIO()
  progress, clock = _progress(file, num_epochs=3)
  progress.start_epoch(1)
  _steps(progress, clock, [1.0] * 10)
  progress.pause()
  clock.now += 4  # evaluation
  progress.end_epoch(METRICS)
  with progress.excluded():
    for _ in range(25):
      clock.now += 1
      progress.show_status("compiling update: 25 s")
  progress.start_epoch(2)
  assert progress.images_per_second == pytest.approx(32)
  assert progress.seconds_left == pytest.approx(20 * 1.0 + 2 * 4)
  # In a log, a line every ten seconds.
  assert file.getvalue().count("compiling update") == 2


def test_a_terminal_shows_what_is_compiling() -> None:
  file = Terminal()
  progress, _ = _progress(file)
  with progress.excluded():
    progress.show_status("compiling gradients, update: 3 s")
    progress.show_status("compiling update: 4 s")
  shown = file.getvalue()
  assert "compiling gradients, update: 3 s" in shown
  assert "compiling update: 4 s" in shown
