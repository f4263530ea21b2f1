"""Which epoch was best, and when to stop."""

import math
from collections.abc import Mapping
from typing import Any

from fer_jax.errors import choose, require

# By what a metric is multiplied so that higher is better.
_SIGNS = {"validation_loss": -1.0, "validation_accuracy": 1.0}


class Stopping:
  """Follows the best value of a metric, for two decisions.

  The best checkpoint is of the epoch with the best value, by however little.
  Early stopping asks for more: training stops after `patience` epochs in a
  row, none of which was better by more than `min_delta` than the last epoch
  that was. A value that is not finite is never better.

  Attributes:
    best: the best value so far; None before the first finite one.
    best_epoch: its epoch, the first of equals; None as above.
    should_stop: whether patience has run out; never where `patience` is 0.

  >>> stopping = Stopping("validation_loss", patience=2, min_delta=0.1)
  >>> [stopping.update(e, loss) for e, loss in enumerate((1.0, 0.95, 0.92))]
  [True, True, True]
  >>> stopping.best_epoch, stopping.should_stop
  (2, True)
  """

  def __init__(self, metric: str, patience: int = 0, min_delta: float = 0.0):
    """Starts with no value.

    Args:
      metric: `validation_loss` (lowest is best) or `validation_accuracy`
        (highest is best).
      patience: epochs; 0 never stops.
      min_delta: in the metric's unit.

    Raises:
      UserError: the metric is unknown or a number is out of its range.
    """
    self._sign = _SIGNS[choose("--config.best_metric", metric, _SIGNS)]
    section = "early_stopping"
    ok, must = patience >= 0, "be at least 0, which is off"
    require(ok, f"{section}.patience", patience, must)
    ok, must = 0 <= min_delta < math.inf, "be a number of at least 0"
    require(ok, f"{section}.min_delta", min_delta, must)
    self._patience = patience
    self._min_delta = min_delta
    self.best: float | None = None
    self.best_epoch: int | None = None
    # The value to beat by `min_delta`. Small gains leave it where it is, so
    # that many of them together can still count as one that is large enough.
    self._mark: float | None = None
    self._num_bad_epochs = 0

  def update(self, epoch: int, value: float) -> bool:
    """Takes in the value of an epoch.

    Args:
      epoch: its number, for `best_epoch`.
      value: of the metric.

    Returns:
      Whether it is the best so far.
    """
    value = float(value)
    if self._is_better(value, self._mark, self._min_delta):
      self._mark = value
      self._num_bad_epochs = 0
    else:
      self._num_bad_epochs += 1
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
    """Whether patience has run out."""
    return 0 < self._patience <= self._num_bad_epochs

  def state(self) -> dict[str, Any]:
    """What a checkpoint keeps: numbers and None, fit for JSON."""
    return {
      "best": self.best,
      "best_epoch": self.best_epoch,
      "mark": self._mark,
      "num_bad_epochs": self._num_bad_epochs,
    }

  def restore(self, state: Mapping[str, Any]) -> None:
    """Goes on from where `state` was taken."""
    self.best = state["best"]
    self.best_epoch = state["best_epoch"]
    self._mark = state["mark"]
    self._num_bad_epochs = state["num_bad_epochs"]
