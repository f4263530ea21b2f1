"""What a training run returns."""

import dataclasses
import datetime
import pathlib
from typing import Any

from fer_jax.training import overfit_check


@dataclasses.dataclass(frozen=True)
class SplitMetrics:
  """How the best epoch did on a split.

  Attributes:
    loss: mean loss, without label smoothing or class weights.
    accuracy: 0 to 1.
    num_examples: images in the split.
  """

  loss: float
  accuracy: float
  num_examples: int


@dataclasses.dataclass(frozen=True)
class TrainResult:
  """The result of a training run; `str()` is a summary for people.

  Attributes:
    workdir: where everything was written.
    best_epoch: number of the epoch with the best `best_metric`, from 1.
    num_epochs: epochs trained; early stopping makes them fewer.
    validation: metrics of the best epoch on the validation split.
    test: the same on the test split; None if it was not evaluated or is empty.
    seconds: training time, including evaluation.
    images_per_second: of training, the median over the epochs.
    overfit: number of images of the overfit check; 0 for a normal run.
    epochs: metrics of every epoch, the records of kind "epoch" in
      `metrics_file`.
  """

  workdir: pathlib.Path
  best_epoch: int
  num_epochs: int
  validation: SplitMetrics
  test: SplitMetrics | None
  seconds: float
  images_per_second: float
  overfit: int = 0
  epochs: tuple[dict[str, Any], ...] = dataclasses.field(default=(), repr=False)

  @property
  def best_checkpoint(self) -> pathlib.Path:
    """The folder of the best epoch's parameters and BatchNorm statistics."""
    return self.workdir / "checkpoints" / "best"

  @property
  def metrics_file(self) -> pathlib.Path:
    """All metrics of the run as JSON Lines."""
    return self.workdir / "metrics.jsonl"

  def __str__(self) -> str:
    lines = [
      f"best epoch {self.best_epoch} of {self.num_epochs}:"
      f" validation loss {self.validation.loss:.4f},"
      f" accuracy {self.validation.accuracy:.2%}"
    ]
    if self.test:
      lines[0] += (
        f"; test loss {self.test.loss:.4f}, accuracy {self.test.accuracy:.2%}"
      )
    duration = datetime.timedelta(seconds=round(self.seconds))
    speed = self.images_per_second
    rate = f", {speed:,.0f} images/s" if speed else ""
    lines.append(f"trained for {duration}{rate}; {self.workdir}/curves.png")
    if self.overfit:
      accuracy = self.validation.accuracy
      lines.append(
        overfit_check.verdict(self.overfit, accuracy, self.best_epoch)
      )
    return "\n".join(lines)
