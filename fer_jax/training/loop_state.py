"""The state of the training loop on the host, as checkpoints store it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fer_jax.training.metrics import Metrics
from fer_jax.training.optim import early_stopping, schedules


@dataclasses.dataclass
class LoopState:
  """The state of the training loop on the host.

  Attributes:
    early_stopping: tracks the best epoch and decides when to stop.
    plateau: lowers the learning rate; None with other schedules.
    step: number of batches seen.
    step_offset: of these, how many more than batches of today's size would
      lead to the same place in the data: 0 unless the batch size has changed.
    epoch: number of finished epochs.
    evaluated_epoch: the last one that was evaluated; 0 before.
    metrics: sums over the steps of the current epoch, on the host.
    seconds: training time so far, including evaluation.
    saved_step: `step` of the latest checkpoint; not stored itself.
  """

  early_stopping: early_stopping.EarlyStopping
  plateau: schedules.Plateau | None
  step: int = 0
  step_offset: int = 0
  epoch: int = 0
  evaluated_epoch: int = 0
  metrics: Metrics = dataclasses.field(default_factory=Metrics.zeros)
  seconds: float = 0.0
  saved_step: int = 0

  @classmethod
  def create(cls, config: ConfigDict) -> "LoopState":
    """Returns the state of a new run.

    Raises:
      UserError: an option of early stopping is unknown or out of range.
    """
    return cls(
      early_stopping.create(config), schedules.plateau(config.schedule)
    )

  @property
  def next_batch(self) -> int:
    """The number of the next batch in the run's order of batches."""
    return self.step - self.step_offset

  def is_finished(self, num_epochs: int) -> bool:
    """Returns whether no epoch is left, or early stopping ends the run."""
    return self.epoch >= num_epochs or self.early_stopping.should_stop

  def to_json(self) -> dict[str, Any]:
    """Returns what a checkpoint stores; floats survive to the last bit."""
    return {
      "step": self.step,
      "step_offset": self.step_offset,
      "epoch": self.epoch,
      "evaluated_epoch": self.evaluated_epoch,
      "metrics": {
        "loss": float(self.metrics.loss),
        "correct": int(self.metrics.correct),
        "count": int(self.metrics.count),
      },
      "seconds": self.seconds,
      "early_stopping": self.early_stopping.state(),
      "plateau": self.plateau.state() if self.plateau else None,
    }

  @classmethod
  def restore(cls, config: ConfigDict, info: Mapping[str, Any]) -> "LoopState":
    """Restores the state from what a checkpoint says beside its arrays."""
    fields = saved_fields(info)
    metrics = fields["metrics"]
    state = cls.create(config)
    state.step = state.saved_step = fields["step"]
    state.epoch = fields["epoch"]
    # Not in checkpoints of development versions before 0.1.0.
    evaluated = state.epoch - state.epoch % config.eval_every_epochs
    state.evaluated_epoch = fields.get("evaluated_epoch", evaluated)
    state.step_offset = fields.get("step_offset", 0)
    state.seconds = fields["seconds"]
    state.metrics = Metrics(
      loss=np.float32(metrics["loss"]),
      correct=np.int32(metrics["correct"]),
      count=np.int32(metrics["count"]),
    )
    state.early_stopping.restore(fields["early_stopping"])
    if state.plateau and fields["plateau"]:
      state.plateau.restore(fields["plateau"])
    return state


def saved_fields(info: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the fields of `LoopState.to_json` in a checkpoint's information.

  Checkpoints of development versions before 0.1.0 call them by other names.
  """
  if "loop_state" in info:
    return dict(info["loop_state"])
  fields = dict(info["position"])
  sums = dict(
    zip(("loss", "correct", "count"), fields.pop("sums"), strict=True)
  )
  early_stopping = fields.pop("stopping")
  return fields | {"metrics": sums, "early_stopping": early_stopping}


def crosses_multiple(before: int, after: int, every: int) -> bool:
  """Returns whether a multiple of `every` is in (before, after]; 0: never."""
  return every > 0 and before // every != after // every
