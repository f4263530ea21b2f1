"""Learning rate schedules.

Every schedule is `learning_rate * warmup * decay`: warmup rises linearly from 0
to 1, decay is the schedule's own. Schedules count updates of the parameters,
not batches: with gradient accumulation there are fewer. Their numbers are
arrays, arguments of a compiled step, so runs with other learning rates, lengths
and schedules share one program.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float32, Int32
from ml_collections import ConfigDict

from fer_jax.errors import choose, require

NAMES = ("fixed", "linear", "cosine", "step", "plateau")


class Schedule(struct.PyTreeNode):
  """The learning rate as a function of the number of updates.

  Attributes:
    name: index of the schedule's name in NAMES.
    learning_rate: the peak value.
    warmup, total: updates of the warmup and of the run; may be fractions.
    end_factor: for linear and cosine, the final value divided by the peak.
    steps: for step, the numbers of updates at which the rate is multiplied.
    step_factor: for step, the factor.
  """

  name: Int32[Array, ""]
  learning_rate: Float32[Array, ""]
  warmup: Float32[Array, ""]
  total: Float32[Array, ""]
  end_factor: Float32[Array, ""]
  steps: Float32[Array, " steps"]
  step_factor: Float32[Array, ""]

  def __call__(self, count: Any) -> Float32[Array, "..."]:
    """Returns the rate of the update after `count` updates (any shape)."""
    done = jnp.asarray(count, jnp.float32)  # exact to 16 million updates
    progress = (done - self.warmup) / (self.total - self.warmup)
    progress = jnp.clip(progress, 0.0, 1.0)
    fall = 1.0 - self.end_factor
    passed = sum((done >= step).astype(jnp.int32) for step in self.steps)
    decays = {
      "linear": 1.0 - fall * progress,
      "cosine": 1.0 - fall * 0.5 * (1.0 - jnp.cos(jnp.pi * progress)),
      "step": self.step_factor**passed,
    }
    decay = jnp.ones_like(done)
    for name, value in decays.items():
      decay = jnp.where(self.name == NAMES.index(name), value, decay)
    ramp = jnp.where(
      done < self.warmup, done / jnp.maximum(self.warmup, 1e-9), 1.0
    )
    return self.learning_rate * ramp * decay


def create(
  config: ConfigDict,
  learning_rate: float,
  steps_per_epoch: int,
  num_epochs: int,
  accumulate_steps: int = 1,
) -> Schedule:
  """Returns the schedule that a configuration describes.

  * fixed: the learning rate itself.
  * linear, cosine: decay to `end_factor` times the learning rate, which is
    reached after the last update; cosine as in SGDR without restarts
    (Loshchilov and Hutter 2017, equation 5).
  * step: multiplied by `step_factor` at each of `step_epochs`.
  * plateau: fixed here; a `Plateau` lowers the rate from the host.

  Epochs count from the start of training, including the warmup, and may be
  fractions.

  Args:
    config: the section `schedule` of a configuration.
    learning_rate: the peak value.
    steps_per_epoch: batches per epoch.
    num_epochs: epochs of the run.
    accumulate_steps: batches per update.

  Raises:
    UserError: a name is unknown or a value is out of range.
    ValueError: `steps_per_epoch` is less than 1.
  """
  _check(config, learning_rate, num_epochs, accumulate_steps)
  if steps_per_epoch < 1:
    raise ValueError(f"steps_per_epoch is {steps_per_epoch}, not at least 1")
  require(
    accumulate_steps <= steps_per_epoch * num_epochs,
    "optimizer.accumulate_steps",
    accumulate_steps,
    f"be at most {steps_per_epoch * num_epochs}, the batches of the whole run",
  )
  # Not rounded to whole updates, so that fractions of an epoch stay exact.
  updates_per_epoch = steps_per_epoch / accumulate_steps
  steps = [epoch * updates_per_epoch for epoch in config.step_epochs]
  number = functools.partial(jnp.asarray, dtype=jnp.float32)
  return Schedule(
    name=jnp.asarray(NAMES.index(config.name), jnp.int32),
    learning_rate=number(learning_rate),
    warmup=number(config.warmup_epochs * updates_per_epoch),
    total=number(num_epochs * updates_per_epoch),
    end_factor=number(config.end_factor),
    steps=number(steps),
    step_factor=number(config.step_factor),
  )


def _check(
  config: ConfigDict,
  learning_rate: float,
  num_epochs: int,
  accumulate_steps: int,
) -> None:
  """Raises UserError for the first value that is out of range."""
  choose("schedule.name", config.name, NAMES)
  checks = (
    ("num_epochs", num_epochs, num_epochs >= 1, "be at least 1"),
    (
      "optimizer.learning_rate",
      learning_rate,
      0 < learning_rate < math.inf,
      "be a number above 0",
    ),
    (
      "optimizer.accumulate_steps",
      accumulate_steps,
      accumulate_steps >= 1,
      "be at least 1",
    ),
    (
      "schedule.warmup_epochs",
      config.warmup_epochs,
      0 <= config.warmup_epochs < num_epochs,
      f"be at least 0 and less than num_epochs={num_epochs}",
    ),
    (
      "schedule.end_factor",
      config.end_factor,
      0 <= config.end_factor <= 1,
      "be from 0 to 1",
    ),
    (
      "schedule.step_epochs",
      tuple(config.step_epochs),
      all(
        isinstance(epoch, int | float) and 0 < epoch < math.inf
        for epoch in config.step_epochs
      ),
      "be numbers above 0",
    ),
    (
      "schedule.step_factor",
      config.step_factor,
      0 < config.step_factor <= 1,
      "be above 0 and at most 1",
    ),
    (
      "schedule.plateau_patience",
      config.plateau_patience,
      config.plateau_patience >= 1,
      "be at least 1",
    ),
    (
      "schedule.plateau_min_delta",
      config.plateau_min_delta,
      0 <= config.plateau_min_delta < math.inf,
      "be a number of at least 0",
    ),
  )
  for field, value, ok, must in checks:
    require(ok, field, value, must)


def plateau(config: ConfigDict) -> "Plateau | None":
  """Returns the plateau of a configuration; None with other schedules.

  Args:
    config: the section `schedule` of a configuration.
  """
  if config.name != "plateau":
    return None
  return Plateau(
    config.step_factor, config.plateau_patience, config.plateau_min_delta
  )


class Plateau:
  """Lowers the learning rate when the validation loss stops decreasing.

  Runs on the host when an epoch is evaluated; `optimizers.set_rate` passes
  its factor to the device. After `patience` consecutive epochs without an
  improvement by more than `min_delta` over the best loss, the factor is
  multiplied by `factor` and the count of epochs is reset.

  Attributes:
    lr_factor: the current factor of the schedule.

  >>> plateau = Plateau(factor=0.5, patience=2, min_delta=0.1)
  >>> [plateau.update(loss) for loss in (1.0, 0.95, 0.92, 0.85)]
  [1.0, 1.0, 0.5, 0.5]
  """

  def __init__(self, factor: float, patience: int, min_delta: float):
    self._factor = factor
    self._patience = patience
    self._min_delta = min_delta
    self._best: float | None = None
    self._num_bad_epochs = 0
    self.lr_factor = 1.0

  def update(self, validation_loss: float, num_epochs: int = 1) -> float:
    """Records the loss of an epoch and returns the factor of the next.

    Args:
      validation_loss: a non-finite loss is never an improvement.
      num_epochs: epochs since the last loss.
    """
    loss = float(validation_loss)
    if math.isfinite(loss) and (
      self._best is None or loss < self._best - self._min_delta
    ):
      self._best = loss
      self._num_bad_epochs = 0
    else:
      self._num_bad_epochs += num_epochs
    if self._num_bad_epochs >= self._patience:
      self.lr_factor *= self._factor
      self._num_bad_epochs = 0
    return self.lr_factor

  def state(self) -> dict[str, Any]:
    """Returns what a checkpoint stores: numbers and None."""
    return {
      "best": self._best,
      "num_bad_epochs": self._num_bad_epochs,
      "lr_factor": self.lr_factor,
    }

  def restore(self, state: Mapping[str, Any]) -> None:
    """Restores what `state` returned."""
    self._best = state["best"]
    self._num_bad_epochs = state["num_bad_epochs"]
    self.lr_factor = state["lr_factor"]
