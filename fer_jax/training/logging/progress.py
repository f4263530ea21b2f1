"""Progress of training.

On a terminal, one line is updated in place, and one line stays for each epoch.
Elsewhere (a file, a job's log) these are plain lines without carriage returns.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from tqdm import tqdm

from fer_jax.text_output import SafeStream
from fer_jax.training.logging.speed_meter import SpeedMeter

_STATUS_SECONDS = 10.0  # between two status lines in a log
_REFRESH_SECONDS = 0.2  # between two updates of the terminal's line


class Progress:
  """Progress, speed and remaining time of a run.

  Speed is images per second of training (see `SpeedMeter`). Its clock is
  stopped between `pause` and `resume`, and from `end_epoch` to `start_epoch`.

  >>> progress = Progress(50, 897, 32, file=sys.stdout)
  >>> progress.start_epoch(3)
  >>> progress.update(450)
  >>> progress.log({"loss": 1.2345, "accuracy": 0.521})
  epoch 3/50 step 450/897 loss 1.2345 accuracy 52.1%
  """

  def __init__(
    self,
    num_epochs: int,
    steps_per_epoch: int,
    batch_size: int,
    file: TextIO | None = None,
    show: bool = True,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Shows nothing yet.

    Args:
      num_epochs: epochs of the whole run.
      steps_per_epoch: batches per epoch.
      batch_size: images per step, over all devices.
      file: where progress is written; None is the current stderr.
      show: False only measures, for processes other than the first.
      clock: returns monotonic seconds.
    """
    self._num_epochs = num_epochs
    self._steps_per_epoch = steps_per_epoch
    self._batch_size = batch_size
    self._file: Any = SafeStream(sys.stderr if file is None else file)
    self._show = show
    self._clock = clock
    self._terminal = show and self._file.isatty()
    self._bar: _Bar | None = None
    self._next_refresh = self._next_status = 0.0
    self._status = ""  # the last logged loss and accuracy

    self._epoch = 0
    self._step = 0  # within the epoch
    self._epoch_start = clock()
    self._meter = SpeedMeter(clock)

  @property
  def images_per_second(self) -> float | None:
    """Speed since the run started or was resumed; None before it is known."""
    return self._meter.images_per_second

  @property
  def epoch_images_per_second(self) -> float | None:
    """Speed in the current epoch; None before it is known."""
    return self._meter.epoch_images_per_second

  @property
  def epoch_seconds(self) -> float:
    """Time since the current epoch started."""
    return self._clock() - self._epoch_start

  @property
  def seconds_left(self) -> float | None:
    """Time to the end of the last epoch; None before the speed is known.

    The remaining steps at the run's speed and, for each remaining epoch, the
    time that the last one took for evaluation and saving.
    """
    if (rate := self.images_per_second) is None:
      return None
    epochs = self._num_epochs - self._epoch
    steps = (epochs + 1) * self._steps_per_epoch - self._step
    between = (epochs + 1) * self._meter.seconds_between
    return steps * self._batch_size / rate + between

  def start_epoch(self, epoch: int, step_in_epoch: int = 0) -> None:
    """Starts an epoch.

    Args:
      epoch: its number, from 1.
      step_in_epoch: steps that were trained before, in a resumed run.
    """
    self._close_bar()
    self._meter.start_epoch()
    self._epoch, self._step = epoch, step_in_epoch
    self._epoch_start = self._clock()
    if self._terminal:
      self._bar = _Bar(
        file=self._file,
        total=self._steps_per_epoch,
        initial=step_in_epoch,
        leave=False,
        ncols=_columns(self._file),
        nrows=20,
        bar_format=self._bar_format(),
      )

  def update(self, steps: int) -> None:
    """Counts steps; must be called after every training call."""
    self._step += steps
    self._meter.update(steps * self._batch_size)
    self._refresh()

  def settle(self) -> None:
    """Must be called when the results of earlier steps have arrived."""
    self._meter.settle()

  def pause(self) -> None:
    """Stops the clock of the speed, if it is running."""
    self._meter.pause()

  def resume(self) -> None:
    """Restarts the clock of the speed, if it is stopped."""
    self._meter.resume()

  @contextlib.contextmanager
  def excluded(self) -> Iterator[None]:
    """Counts what is done inside neither as training nor as evaluation."""
    started = self._next_status = self._clock()
    try:
      yield
    finally:
      self._close_bar()
      self._meter.exclude(self._clock() - started)

  def show_status(self, text: str) -> None:
    """Shows what is being waited for; in a log, every ten seconds."""
    now = self._clock()
    if not self._terminal:
      if now >= self._next_status + _STATUS_SECONDS:
        self._next_status = now
        self.write(text)
      return
    if self._bar is None:
      self._bar = _Bar(
        file=self._file, total=1, leave=False, bar_format=text, nrows=20
      )
    self._bar.bar_format = text
    self._bar.ncols = _columns(self._file)
    self._bar.refresh()

  def log(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
    """Shows the training loss and accuracy.

    Args:
      metrics: `loss` and `accuracy` (0 to 1); either may be missing.
      step: the step within the epoch they belong to; None is the latest.
    """
    self._status = _scores(metrics, "")
    if self._bar is not None:
      self._refresh()
    elif self._show:
      self.write(_join(self._head(step), self._status, self._tail()))

  def end_epoch(self, metrics: Mapping[str, Any]) -> None:
    """Stops the clock and writes a line about the epoch.

    Args:
      metrics: `train_loss`, `train_accuracy`, `validation_loss`,
        `validation_accuracy`, any of which may be missing; `best`, whether the
        epoch is the best so far; `seconds` and `images_per_second` replace
        those measured here.
    """
    self.pause()
    self._close_bar()
    seconds = metrics.get("seconds")
    if seconds is None:
      seconds = self.epoch_seconds
    rate = metrics.get("images_per_second")
    if rate is None:
      rate = self.epoch_images_per_second
    digits = len(str(self._num_epochs))
    self.write(
      _join(
        f"epoch {self._epoch:{digits}}/{self._num_epochs}",
        _prefixed("train", _scores(metrics, "train_")),
        _prefixed("validation", _scores(metrics, "validation_")),
        tqdm.format_interval(seconds),
        _speed(rate),
        "best" if metrics.get("best") else "",
        separator="  ",
      )
    )

  def write(self, line: str) -> None:
    """Prints a line above the one that is updated."""
    if not self._show:
      return
    if self._terminal:
      tqdm.write(line, file=self._file)
    else:
      print(line, file=self._file, flush=True)

  def close(self) -> None:
    """Removes the updated line; the measured speed stays available."""
    self.pause()
    self._close_bar()

  def _head(self, step: int | None = None) -> str:
    step = self._step if step is None else step
    epoch = f"epoch {self._epoch}/{self._num_epochs}"
    return f"{epoch} step {step}/{self._steps_per_epoch}"

  def _tail(self) -> str:
    rate = self.epoch_images_per_second or self.images_per_second
    left = self.seconds_left
    time_left = "" if left is None else f"{tqdm.format_interval(left)} left"
    return _join(_speed(rate), time_left)

  def _bar_format(self) -> str:
    """Returns the line's format; a narrow terminal cuts off the bar."""
    return _join(self._head(), self._status, self._tail(), "|{bar}|")

  def _refresh(self) -> None:
    """Redraws the line, unless that was just done."""
    now = self._clock()
    if self._bar is None or now < self._next_refresh:
      return
    self._bar.n = self._step
    self._bar.ncols = _columns(self._file)
    self._bar.bar_format = self._bar_format()
    self._bar.refresh()
    self._next_refresh = now + _REFRESH_SECONDS

  def _close_bar(self) -> None:
    if self._bar is not None:
      self._bar.close()
      self._bar = None


class _Bar(tqdm):
  """A bar that no thread redraws."""

  monitor_interval = 0


def _columns(file: TextIO) -> int:
  """Returns the terminal's width; some report 0."""
  try:
    columns = os.get_terminal_size(file.fileno()).columns
  except OSError:
    columns = 0
  return (columns or 80) - 1


def _scores(metrics: Mapping[str, Any], prefix: str) -> str:
  """Formats loss and accuracy, either of which may be missing or None."""
  loss = metrics.get(f"{prefix}loss")
  accuracy = metrics.get(f"{prefix}accuracy")
  return _join(
    "" if loss is None else f"loss {loss:.4f}",
    "" if accuracy is None else f"accuracy {accuracy:.1%}",
  )


def _speed(rate: float | None) -> str:
  """Formats images per second."""
  if rate is None:
    return ""
  return f"{rate:,.0f} images/s" if rate >= 10 else f"{rate:.1f} images/s"


def _prefixed(name: str, text: str) -> str:
  return f"{name} {text}" if text else ""


def _join(*parts: str, separator: str = " ") -> str:
  """Joins the parts that are not empty."""
  return separator.join(filter(None, parts))
