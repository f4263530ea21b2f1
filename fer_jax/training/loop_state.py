"""Where a run stands: what a checkpoint knows beside the arrays."""

import dataclasses
from typing import Any

import jax
import numpy as np

from fer_jax.training.metrics import Sums


@dataclasses.dataclass
class Position:
  """Where a run stands; kept in every checkpoint.

  Attributes:
    step: batches seen.
    epoch: finished epochs.
    sums: metrics of the running epoch's steps, on the host.
    seconds: of training so far, evaluation included.
    stopping: state of the stopping rule.
    plateau: state of the learning rate's, None where it has none.
  """

  step: int = 0
  epoch: int = 0
  sums: Sums = dataclasses.field(default_factory=lambda: no_sums())
  seconds: float = 0.0
  stopping: dict[str, Any] = dataclasses.field(default_factory=dict)
  plateau: dict[str, Any] | None = None

  def to_json(self) -> dict[str, Any]:
    """What a checkpoint keeps; floats survive it to the last bit."""
    fields = dataclasses.asdict(self)
    loss, correct, count = jax.tree.leaves(self.sums)
    return fields | {"sums": [float(loss), int(correct), int(count)]}

  @classmethod
  def from_json(cls, fields: dict[str, Any]) -> "Position":
    """What `to_json` made."""
    loss, correct, count = fields["sums"]
    sums = Sums(np.float32(loss), np.int32(correct), np.int32(count))
    return cls(**fields | {"sums": sums})


def no_sums() -> Sums:
  """Metrics of nothing, on the host."""
  return Sums(np.float32(0), np.int32(0), np.int32(0))


def passes(before: int, after: int, every: int) -> bool:
  """Whether a multiple of `every` lies in (before, after]; 0 never."""
  return every > 0 and before // every != after // every
