"""What training changes from step to step."""

from typing import Any

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Int

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


def empty_like(tree: Tree) -> Tree:
  """Host arrays of the same shapes and types, to be restored into."""
  return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), tree)
