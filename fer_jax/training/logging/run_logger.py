"""What a run tells: the terminal, `metrics.jsonl`, TensorBoard, curves.png."""

import math
import pathlib
import statistics
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from fer_jax.errors import Diverged
from fer_jax.training.logging import curves, metric_writer
from fer_jax.training.logging.progress import Progress
from fer_jax.training.loop_state import Position
from fer_jax.training.metrics import Sums
from fer_jax.training.runtime.compilation_cache import CompileTimes

# Drawing takes a third of a second, as long as short epochs: it gets this
# share of the time, and what is left over is drawn at the end.
_DRAWING_SHARE = 0.01


class Journal:
  """Shows and records a run; only the first process writes.

  Attributes:
    progress: the bar or lines, and the run's speed.
  """

  def __init__(
    self,
    config: ConfigDict,
    workdir: pathlib.Path,
    steps_per_epoch: int,
    restored_step: int | None,
    compile_times: CompileTimes | None,
    progress: Progress | None = None,
  ):
    """Opens the records.

    Args:
      config: of the run.
      workdir: of the run.
      steps_per_epoch: batches an epoch.
      restored_step: of the checkpoint gone on from; None for a new run.
      compile_times: told of once, after the first epoch; None never is.
      progress: in place of one of its own.
    """
    write = jax.process_index() == 0
    self._config = config
    self._workdir = workdir
    self._steps_per_epoch = steps_per_epoch
    self._compile_times = compile_times
    self._records = metric_writer.Records(workdir, restored_step, write=write)
    self._draws = write
    self._draw_from = 0.0  # on the clock
    self._undrawn = False  # whether there are epochs that curves.png lacks
    self.progress = progress or Progress(
      config.num_epochs, steps_per_epoch, config.batch_size, show=write
    )

  def step(
    self, position: Position, step: int, sums: Sums, learning_rate: float
  ) -> None:
    """Tells of the running epoch.

    Args:
      position: in the running epoch.
      step: up to which the metrics are.
      sums: metrics of the epoch's steps, on the host.
      learning_rate: of that step.

    Raises:
      Diverged: the loss is no finite number.
    """
    means = self.means(position, sums)
    step_in_epoch = step - position.epoch * self._steps_per_epoch
    self.progress.log(means, step_in_epoch)
    self._records.append(
      {
        "kind": "train",
        "epoch": position.epoch + 1,
        "step": step,
        **means,
        "learning_rate": learning_rate,
        "images_per_second": self.progress.epoch_images_per_second,
      }
    )

  def epoch(self, position: Position, metrics: dict[str, Any]) -> None:
    """Tells of an epoch that has ended, and draws the curves now and then.

    Args:
      position: after it.
      metrics: loss and accuracy of training and validation, the learning
        rate, and whether it is the `best` so far.
    """
    record = {
      "kind": "epoch",
      "epoch": position.epoch,
      "step": position.step,
      **metrics,
      "images_per_second": self.progress.epoch_images_per_second,
    }
    self._records.append({**record, "seconds": position.seconds})
    self.progress.end_epoch(record)
    if self._compile_times:  # By now every program has been needed.
      self.progress.write(self._compile_times.describe())
      self._compile_times = None
    self._undrawn = self._draws
    if time.monotonic() >= self._draw_from:
      self._draw()

  def end(self, position: Position, metrics: dict[str, Any]) -> dict[str, Any]:
    """Records the run's summary and returns it."""
    speeds = [
      record["images_per_second"]
      for record in metric_writer.read(self._workdir)
      if record["kind"] == "epoch" and record["images_per_second"]
    ]
    summary = {
      "kind": "summary",
      "step": position.step,
      "epoch": position.epoch,
      **metrics,
      "seconds": position.seconds,
      "images_per_second": statistics.median(speeds or [0.0]),
    }
    if self._config.overfit:
      summary["overfit"] = self._config.overfit
    self._records.append(summary)
    return summary

  def means(self, position: Position, sums: Sums) -> dict[str, float]:
    """Training loss and accuracy of the running epoch.

    Raises:
      Diverged: the loss is no finite number.
    """
    means = sums.compute()
    self.check_finite(position, means["loss"], "training loss")
    return means

  def check_finite(self, position: Position, loss: float, name: str) -> None:
    """Raises Diverged for a loss that is no finite number."""
    if not math.isfinite(loss):
      rate = self._config.optimizer.learning_rate
      raise Diverged(
        f"{name} is {loss} in epoch {position.epoch + 1}, which is not saved:"
        f" try a --config.optimizer.learning_rate below {rate}, or"
        " --config.optimizer.clip_norm=1; earlier checkpoints are whole"
      )

  def close(self) -> None:
    """Takes the bar away, closes the files and draws what is not drawn."""
    self.progress.close()
    self._records.close()
    self._draw()

  def _draw(self) -> None:
    """Draws the curves, where they lack something."""
    if not self._undrawn:
      return
    started = time.monotonic()
    title = f"{self._config.model.name} on {self._config.dataset.name}"
    told = metric_writer.read(self._workdir)
    curves.draw(told, self._workdir / "curves.png", title)
    self._undrawn = False
    now = time.monotonic()
    self._draw_from = now + (now - started) / _DRAWING_SHARE
