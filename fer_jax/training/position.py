"""Where a run stands: what a checkpoint knows beside the arrays."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.errors import UserError
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


def claim(workdir: pathlib.Path, config: ConfigDict, write: bool) -> None:
  """Makes a workdir this run's: writes config.json, or checks it.

  Args:
    workdir: where the run goes.
    config: of the run.
    write: whether this process writes.

  Raises:
    UserError: it holds a run of another configuration, or cannot be written.
  """
  path = workdir / "config.json"
  try:
    if path.exists():
      before = configs.from_json(json.loads(path.read_text()))
      changed = configs.differences(before, config)
      if changed:
        raise UserError(
          f"{workdir} holds a run of another configuration"
          f" ({'; '.join(changed)}): give another --workdir, or the"
          " configuration it has"
        )
    elif write:
      workdir.mkdir(parents=True, exist_ok=True)
      draft = path.with_suffix(".tmp")
      draft.write_text(json.dumps(configs.to_json(config), indent=2) + "\n")
      draft.replace(path)
  except (OSError, ValueError) as e:
    raise UserError(f"workdir {workdir}: {e}: give another --workdir") from e
