"""The arrays that a training step takes and returns."""

import json
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Float32, Int, Key
from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.training import flat_params
from fer_jax.training.flat_params import Flat
from fer_jax.training.optim.schedules import Schedule

Tree = Any  # a tree of arrays

# The sections of a configuration that are compiled into a step, except for
# the fields of the optimizer that are arguments (`RunInputs`).
_COMPILED_SECTIONS = (
  "input",
  "augment",
  "optimizer",
  "loss",
  "ema_decay",
  "dtype",
)
_OPTIMIZER_ARGUMENTS = ("learning_rate", "weight_decay")


class TrainState(struct.PyTreeNode):
  """Everything that a training step changes.

  Attributes:
    step: number of batches seen, an int32 scalar.
    params: the model's parameters, float32.
    batch_stats: BatchNorm's running statistics; {} for a model without.
    opt_state: the optimizer's state.
    ema: exponential moving averages of `params` and `batch_stats`, by these
      names; {} if it is off.
  """

  step: Int[Array, ""]
  params: Tree
  batch_stats: Tree
  opt_state: Tree
  ema: Tree

  def eval_variables(self) -> dict[str, Tree]:
    """Returns the variables to evaluate: the averages if there are."""
    return self.ema or self.variables()

  def variables(self) -> dict[str, Tree]:
    """Returns the variables that the step trains."""
    return {"params": self.params, "batch_stats": self.batch_stats}

  def packed(self, group_of: Callable[[str, Any], Hashable]) -> "TrainState":
    """Packs every tree into vectors, as `Flat.from_tree` does the parameters.

    `flat_params.to_tree` undoes it.

    Args:
      group_of: maps the path of a parameter, and it, to its group.
    """

    def packed(variables: dict[str, Tree]) -> dict[str, Tree]:
      params, batch_stats = variables["params"], variables["batch_stats"]
      if batch_stats:
        batch_stats = Flat.from_tree(batch_stats, lambda *_: ())
      params = Flat.from_tree(params, group_of)
      return {"params": params, "batch_stats": batch_stats}

    variables = packed(self.variables())
    return self.replace(
      **variables,
      opt_state=flat_params.pack_like(variables["params"], self.opt_state),
      ema=packed(self.ema) if self.ema else {},
    )


class RunInputs(NamedTuple):
  """Arguments that are the same in every step of a run.

  They are not constants of the compiled program, so that runs with other seeds
  and learning rates share it.

  Attributes:
    rng: key of augmentation and dropout; each step folds its number into it.
    schedule: learning rate as a function of the number of updates.
    weight_decay: as in `optimizers`.
  """

  rng: Key[Array, ""]
  schedule: Schedule
  weight_decay: Float32[Array, ""]


def compiled_fields(config: ConfigDict) -> str:
  """Returns the fields that are compiled into a step, as JSON."""
  fields = configs.to_json(config)
  kept = {name: fields[name] for name in _COMPILED_SECTIONS}
  for name in _OPTIMIZER_ARGUMENTS:
    del kept["optimizer"][name]
  return json.dumps(kept, sort_keys=True)


def empty_like(tree: Tree) -> Tree:
  """Returns host arrays of the same shapes and types, to restore into."""
  return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), tree)
