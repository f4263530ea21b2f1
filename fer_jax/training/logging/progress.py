"""What a person sees while a model trains.

On a terminal one line, updated in place, and one line that stays for every
epoch. Elsewhere (a file, a job's log) plain lines, without carriage returns.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from tqdm import tqdm

_STATUS_SECONDS = 10.0  # at most this often is a status written to a log
_REFRESH_SECONDS = 0.2  # at most this often is the terminal's line redrawn


class Progress:
  """Progress, speed and time left of a run.

  Speed is images over time in steps. The clock starts when the first call of
  the step has returned, since that call waits for the compiler; its images are
  not counted either, and so from the second `update` on all are. It stands
  still between `pause` and `resume` and from `end_epoch` to `start_epoch`.
  Steps run behind the calls that start them: `pause` once their results have
  arrived, or the speed is that of the queue.

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
      num_epochs: of the whole run.
      steps_per_epoch: batches an epoch.
      batch_size: images a step, over all devices.
      file: where to; None is stderr as it is now.
      show: False measures and shows nothing, for processes other than the
        first.
      clock: seconds, never going back.
    """
    self._num_epochs = num_epochs
    self._steps_per_epoch = steps_per_epoch
    self._batch_size = batch_size
    self._file = sys.stderr if file is None else file
    self._show = show
    self._clock = clock
    self._terminal = show and self._file.isatty()
    self._bar: _Bar | None = None
    self._next_refresh = self._next_status = 0.0
    self._status = ""  # loss and accuracy as last logged

    self._epoch = 0
    self._step = 0  # in the epoch
    self._epoch_start = clock()
    # The meter: images and seconds of steady training, and since when it runs.
    self._images = 0
    self._seconds = 0.0
    self._running_since: float | None = None
    self._compiled = False
    self._at_epoch_start = (0, 0.0)  # images and seconds, then
    # Time outside of steps: in this epoch, and the whole of the last one's.
    self._paused_since: float | None = None
    self._paused_seconds = 0.0
    self._seconds_between = 0.0

  @property
  def images_per_second(self) -> float | None:
    """Of the run since it started or was resumed; None before the first."""
    return self._rate((0, 0.0))

  @property
  def epoch_images_per_second(self) -> float | None:
    """Of the current epoch; None before its first measured step."""
    return self._rate(self._at_epoch_start)

  @property
  def seconds_left(self) -> float | None:
    """Time to the end of the last epoch, None before any speed is known.

    The steps left at the run's speed and, for every epoch left, what the last
    one took for evaluation and saving.
    """
    if (rate := self.images_per_second) is None:
      return None
    epochs = self._num_epochs - self._epoch
    steps = (epochs + 1) * self._steps_per_epoch - self._step
    between = (epochs + 1) * self._seconds_between
    return steps * self._batch_size / rate + between

  def start_epoch(self, epoch: int, step_in_epoch: int = 0) -> None:
    """Begins an epoch, the first of which is number 1.

    Args:
      epoch: 1 .. num_epochs.
      step_in_epoch: steps of it that were done before, in a resumed run.
    """
    self.resume()
    if self._epoch:
      self._seconds_between = self._paused_seconds
    self._paused_seconds = 0.0
    self._epoch, self._step = epoch, step_in_epoch
    self._epoch_start = self._clock()
    self._at_epoch_start = (self._images, self._measured())
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
    """Counts steps whose call has returned; called after every call."""
    self._step += steps
    now = self._clock()
    if self._running_since is not None:
      self._images += steps * self._batch_size
    elif self._paused_since is None:
      self._running_since = now
    self._compiled = True
    self._refresh()

  def pause(self) -> None:
    """Stops the clock: what follows is not training; no effect when stopped.

    Updates while paused count no images, so that a call known to compile once
    more, for another number of steps, can be left out.
    """
    if self._paused_since is not None:
      return
    self._paused_since = self._clock()
    if self._running_since is not None:
      self._seconds += self._paused_since - self._running_since
      self._running_since = None

  def resume(self) -> None:
    """Lets the clock go on; no effect when it runs."""
    if self._paused_since is None:
      return
    now = self._clock()
    self._paused_seconds += now - self._paused_since
    self._paused_since = None
    if self._compiled:
      self._running_since = now

  @contextlib.contextmanager
  def excluded(self) -> Iterator[None]:
    """Counts what is done inside neither as training nor as evaluation."""
    started = self._next_status = self._clock()
    try:
      yield
    finally:
      self._close_bar()
      if self._paused_since is not None:
        self._paused_since += self._clock() - started

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
    """Shows `loss` and `accuracy` (0..1) of the last steps.

    Args:
      metrics: of which either may lack.
      step: of the epoch, up to which they are; None: the latest.
    """
    self._status = _scores(metrics, "")
    if self._bar is not None:
      self._refresh()  # with the next calls, where it is too early
    elif self._show:
      self.write(_join(self._head(step), self._status, self._tail()))

  def end_epoch(self, metrics: Mapping[str, Any]) -> None:
    """Stops the clock and leaves a line about the epoch.

    Args:
      metrics: `train_loss`, `train_accuracy`, `validation_loss`,
        `validation_accuracy`, of which any may lack; `best`, whether the epoch
        is the best so far; `seconds` and `images_per_second` where they are
        not to be those measured here.
    """
    self.pause()
    self._close_bar()
    seconds = metrics.get("seconds")
    if seconds is None:
      seconds = self._clock() - self._epoch_start
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
    """Prints a line, above the one that is updated."""
    if not self._show:
      return
    if self._terminal:
      tqdm.write(line, file=self._file)
    else:
      print(line, file=self._file, flush=True)

  def close(self) -> None:
    """Takes the updated line away; speed can still be asked for."""
    self.pause()
    self._close_bar()

  def _measured(self) -> float:
    """Seconds on the meter."""
    if self._running_since is None:
      return self._seconds
    return self._seconds + self._clock() - self._running_since

  def _rate(self, since: tuple[int, float]) -> float | None:
    images = self._images - since[0]
    seconds = self._measured() - since[1]
    return images / seconds if images > 0 and seconds > 0 else None

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
    """The bar comes last: on a narrow terminal it is what is cut off."""
    return _join(self._head(), self._status, self._tail(), "|{bar}|")

  def _refresh(self) -> None:
    """Redraws the line, if it was not just now."""
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
  """A bar that is redrawn when told, not by a thread of its own."""

  monitor_interval = 0


def _columns(file: TextIO) -> int:
  """Columns to use; terminals that do not know their size say 0."""
  try:
    columns = os.get_terminal_size(file.fileno()).columns
  except OSError:
    columns = 0
  return (columns or 80) - 1


def _scores(metrics: Mapping[str, Any], prefix: str) -> str:
  """Loss and accuracy, of which any may lack or be None."""
  loss = metrics.get(f"{prefix}loss")
  accuracy = metrics.get(f"{prefix}accuracy")
  return _join(
    "" if loss is None else f"loss {loss:.4f}",
    "" if accuracy is None else f"accuracy {accuracy:.1%}",
  )


def _speed(rate: float | None) -> str:
  """Images a second, with a decimal where there are few."""
  if rate is None:
    return ""
  return f"{rate:,.0f} images/s" if rate >= 10 else f"{rate:.1f} images/s"


def _prefixed(name: str, text: str) -> str:
  return f"{name} {text}" if text else ""


def _join(*parts: str, separator: str = " ") -> str:
  """Parts that are not empty."""
  return separator.join(filter(None, parts))
