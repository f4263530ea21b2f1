"""Early stopping, and the best epoch."""

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from fer_jax.errors import choose, require

# Factors that make higher values better.
_SIGNS = {"validation_loss": -1.0, "validation_accuracy": 1.0}


class EarlyStopping:
  """Tracks the best value of a metric, for two decisions.

  The best checkpoint is that of the epoch with the best value, by however
  small a difference. Early stopping requires more: training stops after
  `patience` consecutive epochs without an improvement by more than `min_delta`
  over the last epoch that had one. A non-finite value is never an improvement.

  Attributes:
    best: the best value so far; None before the first finite one.
    best_epoch: its epoch, the first of equals; None before.

  >>> stopping = EarlyStopping("validation_loss", patience=2, min_delta=0.1)
  >>> [stopping.update(e, loss) for e, loss in enumerate((1.0, 0.95, 0.92))]
  [True, True, True]
  >>> stopping.best_epoch, stopping.should_stop
  (2, True)
  """

  def __init__(self, metric: str, patience: int = 0, min_delta: float = 0.0):
    """Starts without a value.

    Args:
      metric: `validation_loss` (lowest is best) or `validation_accuracy`
        (highest is best).
      patience: epochs without an improvement; 0 never stops.
      min_delta: smallest improvement, in the metric's unit.

    Raises:
      UserError: the metric is unknown or a number is out of range.
    """
    self._sign = _SIGNS[choose("best_metric", metric, _SIGNS)]
    section = "early_stopping"
    must = "be at least 0 (0 is off)"
    require(patience >= 0, f"{section}.patience", patience, must)
    ok, must = 0 <= min_delta < math.inf, "be a number of at least 0"
    require(ok, f"{section}.min_delta", min_delta, must)
    self._patience = patience
    self._min_delta = min_delta
    self.best: float | None = None
    self.best_epoch: int | None = None
    # The value to improve on by `min_delta`. Small improvements do not move
    # it, so that several of them can add up to one that is large enough.
    self._mark: float | None = None
    self._num_bad_epochs = 0

  def update(self, epoch: int, value: float, num_epochs: int = 1) -> bool:
    """Records the value of an epoch.

    Args:
      epoch: its number, for `best_epoch`.
      value: the metric's.
      num_epochs: epochs since the last value.

    Returns:
      Whether it is the best so far.
    """
    value = float(value)
    if self._is_better(value, self._mark, self._min_delta):
      self._mark = value
      self._num_bad_epochs = 0
    else:
      self._num_bad_epochs += num_epochs
    improved = self._is_better(value, self.best, 0.0)
    if improved:
      self.best = value
      self.best_epoch = int(epoch)
    return improved

  def _is_better(self, value: float, than: float | None, by: float) -> bool:
    if not math.isfinite(value):
      return False
    return than is None or self._sign * (value - than) > by

  @property
  def should_stop(self) -> bool:
    """Whether patience has run out; never if it is 0."""
    return 0 < self._patience <= self._num_bad_epochs

  def forget_best(self) -> None:
    """Lets the next epoch be the best, since the best one's files are lost."""
    self.best = self.best_epoch = None

  def state(self) -> dict[str, Any]:
    """Returns what a checkpoint stores: numbers and None."""
    return {
      "best": self.best,
      "best_epoch": self.best_epoch,
      "mark": self._mark,
      "num_bad_epochs": self._num_bad_epochs,
    }

  def restore(self, state: Mapping[str, Any]) -> None:
    """Restores what `state` returned."""
    self.best = state["best"]
    self.best_epoch = state["best_epoch"]
    self._mark = state["mark"]
    self._num_bad_epochs = state["num_bad_epochs"]


def create(config: ConfigDict) -> EarlyStopping:
  """Returns the early stopping that a whole configuration describes."""
  return EarlyStopping(
    config.best_metric,
    config.early_stopping.patience,
    config.early_stopping.min_delta,
  )
