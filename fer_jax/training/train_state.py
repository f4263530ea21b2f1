"""What training changes from step to step."""

from collections.abc import Callable, Hashable
from typing import Any

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Int

from fer_jax.training import flat_params
from fer_jax.training.flat_params import Flat

Tree = Any  # a tree of arrays


class TrainState(struct.PyTreeNode):
  """All that training needs beside the configuration and the iterator.

  Attributes:
    step: batches seen, int32 scalar.
    params: the model's parameters, float32.
    batch_stats: BatchNorm's running statistics; {} for a model without.
    opt_state: the optimizer's.
    ema: the exponential moving average of `params`; {} when it is off.
  """

  step: Int[Array, ""]
  params: Tree
  batch_stats: Tree
  opt_state: Tree
  ema: Tree

  def eval_variables(self) -> dict[str, Tree]:
    """What evaluation applies: the averaged parameters where there are any."""
    return {
      "params": self.ema or self.params,
      "batch_stats": self.batch_stats,
    }

  def packed(self, group_of: Callable[[str, Any], Hashable]) -> "TrainState":
    """Packs every tree into vectors, as `Flat.from_tree` does the parameters.

    Args:
      group_of: maps the path of a parameter, and it, to its group.
    """
    params = Flat.from_tree(self.params, group_of)
    return self.replace(
      params=params,
      batch_stats=Flat.from_tree(self.batch_stats, lambda *_: ())
      if self.batch_stats
      else {},
      opt_state=flat_params.pack_like(params, self.opt_state),
      ema=params.pack_tree(self.ema) if self.ema else {},
    )

  def unpacked(self) -> "TrainState":
    """Undoes `packed`; a state that is not packed is returned as it is."""
    state = flat_params.to_tree(self)
    assert isinstance(state, TrainState)
    return state


def empty_like(tree: Tree) -> Tree:
  """Host arrays of the same shapes and types, to be restored into."""
  return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), tree)
