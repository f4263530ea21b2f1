"""Logs a run: the terminal, `metrics.jsonl`, TensorBoard and curves.png."""

import math
import pathlib
import statistics
import time
from collections.abc import Mapping
from typing import Any

from fer_jax.errors import Diverged, UserError
from fer_jax.training.experiment import Experiment
from fer_jax.training.logging import curves, metric_writer
from fer_jax.training.logging.progress import Progress
from fer_jax.training.loop_state import LoopState
from fer_jax.training.metrics import Metrics
from fer_jax.training.runtime.process_group import ProcessGroup
from fer_jax.training.runtime.profiler import Trace
from fer_jax.training.train_result import SplitMetrics, TrainResult
from fer_jax.training.train_state import Tree

# Drawing the curves takes a third of a second, as long as a short epoch. It may
# take this fraction of the time; the last epochs are drawn at the end.
_DRAWING_FRACTION = 0.01


class RunLogger:
  """Shows and records a run; only the first process writes.

  Attributes:
    progress: the progress bar or lines, and the run's speed.
    trace: profiles some steps, if the configuration says so.
  """

  def __init__(
    self,
    experiment: Experiment,
    workdir: pathlib.Path,
    restored: LoopState,
    group: ProcessGroup,
  ):
    """Opens the metric files.

    Args:
      experiment: the run's.
      workdir: where files are written.
      restored: of the checkpoint that the run resumes from; a new one, at step
        0, starts the files again.
      group: the processes of the run.
    """
    is_first_process = group.is_first
    self._group = group
    self._experiment = experiment
    self._workdir = workdir
    self._writer = metric_writer.MetricWriter(
      workdir, restored.step or None, restored.epoch, is_first_process
    )
    self._pending: Tree = None  # {"metrics", "learning_rate"}, on the device
    self._pending_step = 0
    self._draws = is_first_process
    self._next_drawing = 0.0  # on the monotonic clock
    self._is_undrawn = False  # whether curves.png lacks epochs
    self._epoch_record: dict[str, Any] = {}  # of the last finished epoch
    self._warned: set[str] = set()
    config = experiment.config
    self.trace = Trace(workdir / "profile", config.profile and is_first_process)
    self.progress = Progress(
      config.num_epochs,
      experiment.steps_per_epoch,
      config.batch_size,
      show=is_first_process,
    )

  def log_later(self, loop: LoopState, observed: Tree) -> None:
    """Logs what was given before, and keeps this until the next call.

    By then the device has computed it, and nothing waits for its transfer.

    Args:
      loop: after the step that was observed.
      observed: `metrics` and `learning_rate`, on the device.
    """
    self.flush(loop)
    self._pending, self._pending_step = observed, loop.step

  def flush(self, loop: LoopState) -> None:
    """Logs what `log_later` keeps.

    Raises:
      Diverged: the loss is not finite.
    """
    if self._pending is None:
      return
    observed = self._experiment.parallel.fetch(self._pending)
    step, self._pending = self._pending_step, None
    means = self.means(loop, observed["metrics"])
    steps_per_epoch = self._experiment.steps_per_epoch
    first_step = loop.epoch * steps_per_epoch + loop.step_offset
    progress = self.progress
    progress.log(means, step - first_step)
    self._append(
      {
        "kind": "train",
        "epoch": loop.epoch + 1,
        "step": step,
        **means,
        "learning_rate": float(observed["learning_rate"]),
        "images_per_second": (
          progress.epoch_images_per_second or progress.images_per_second
        ),
      }
    )
    progress.settle()

  def record_epoch(self, loop: LoopState, metrics: Mapping[str, Any]) -> None:
    """Writes a finished epoch to the metric files, before it is saved.

    Args:
      loop: after the epoch.
      metrics: loss and accuracy of training and validation, the learning
        rate, and whether the epoch is the `best` so far.
    """
    record = {
      "kind": "epoch",
      "epoch": loop.epoch,
      "step": loop.step,
      **metrics,
      "images_per_second": self.progress.epoch_images_per_second,
    }
    self._append({**record, "seconds": loop.seconds})
    self.progress.pause()
    self._epoch_record = record | {"seconds": self.progress.epoch_seconds}

  def show_epoch(self) -> None:
    """Shows the epoch that was saved, and draws the curves now and then."""
    self.progress.end_epoch(self._epoch_record)
    self._is_undrawn = self._draws
    if time.monotonic() >= self._next_drawing:
      self._draw()

  def finish(
    self, loop: LoopState, scores: Mapping[str, Mapping[str, float]]
  ) -> TrainResult:
    """Logs the run's summary and returns its result.

    Args:
      loop: at the end of the run.
      scores: loss and accuracy of the best epoch, by split.
    """
    splits = self._experiment.dataset.splits
    epochs = tuple(self._group.share(self._read_epochs))
    speeds = [r["images_per_second"] for r in epochs if r["images_per_second"]]
    results = {
      name: SplitMetrics(**score, num_examples=len(splits[name]))
      for name, score in scores.items()
    }
    best_epoch = loop.early_stopping.best_epoch
    assert best_epoch is not None  # A non-finite loss raises Diverged.
    result = TrainResult(
      workdir=self._workdir,
      best_epoch=best_epoch,
      num_epochs=loop.epoch,
      validation=results["validation"],
      test=results.get("test"),
      seconds=loop.seconds,
      images_per_second=statistics.median(speeds or [0.0]),
      overfit=self._experiment.config.overfit,
      epochs=epochs,
    )
    self._append(_summary(result, loop))
    return result

  def _read_epochs(self) -> list[dict[str, Any]]:
    records = metric_writer.read(self._workdir)
    return [record for record in records if record["kind"] == "epoch"]

  def metrics_so_far(self) -> bytes:
    """Returns the contents of metrics.jsonl, even if it was removed."""
    return self._writer.contents()

  def warn(self, loop: LoopState, message: str) -> None:
    """Shows a warning, and writes it to metrics.jsonl."""
    self.progress.write(f"warning: {message}")
    self._append(
      {
        "kind": "warning",
        "epoch": loop.epoch + 1,
        "step": loop.step,
        "message": message,
      }
    )

  def _append(self, record: Mapping[str, Any]) -> None:
    """Writes a record; if that fails, it only warns, since training goes on."""
    try:
      self._writer.append(record)
    except UserError as e:
      self._warn_once(str(e))

  def _warn_once(self, message: str) -> None:
    if message not in self._warned:
      self._warned.add(message)
      self.progress.write(f"warning: {message}")

  def means(self, loop: LoopState, metrics: Metrics) -> dict[str, float]:
    """Returns training loss and accuracy of the current epoch.

    Raises:
      Diverged: the loss is not finite.
    """
    means = metrics.compute()
    self.check_finite(loop, means["loss"], "training loss")
    return means

  def check_finite(self, loop: LoopState, loss: float, name: str) -> None:
    """Raises Diverged if a loss is NaN or infinite."""
    if not math.isfinite(loss):
      config, ending = self._experiment.config, ""
      if loop.epoch or config.checkpoint.every_steps:
        ending = ", in another workdir; earlier checkpoints are intact"
      if loop.early_stopping.best_epoch is not None:
        ending += f" (init_from={self._workdir} starts from the best one)"
      raise Diverged(
        f"non-finite {name} ({loss}) in epoch {loop.epoch + 1}, which is not"
        " saved: use an optimizer.learning_rate below"
        f" {config.optimizer.learning_rate}, or optimizer.clip_norm=1{ending}"
      )

  def close(self) -> None:
    """Removes the progress bar, closes the files, draws the last epochs."""
    self.trace.close()
    if self.trace.is_missing:
      self.progress.write(
        "profile=True: too few steps were trained for a trace"
      )
    self.progress.close()
    self._writer.close()
    self._draw()

  def _draw(self) -> None:
    """Draws the curves if they lack epochs."""
    if not self._is_undrawn:
      return
    started = time.monotonic()
    config = self._experiment.config
    try:
      curves.draw(
        metric_writer.read(self._workdir),
        self._workdir / "curves.png",
        f"{config.model.name} on {config.dataset.name}",
      )
    except UserError as e:
      self._warn_once(str(e))
    self._is_undrawn = False
    now = time.monotonic()
    self._next_drawing = now + (now - started) / _DRAWING_FRACTION


def _summary(result: TrainResult, loop: LoopState) -> dict[str, Any]:
  """Returns the record of kind "summary"."""
  record: dict[str, Any] = {
    "kind": "summary",
    "step": loop.step,
    "epoch": result.num_epochs,
    "best_epoch": result.best_epoch,
  }
  for split in ("validation", "test"):
    metrics: SplitMetrics | None = getattr(result, split)
    if metrics:
      record[f"{split}_loss"] = metrics.loss
      record[f"{split}_accuracy"] = metrics.accuracy
      record[f"{split}_count"] = metrics.num_examples
  record["seconds"] = result.seconds
  record["images_per_second"] = result.images_per_second
  if result.overfit:
    record["overfit"] = result.overfit
  return record
