"""Exponential moving averages of the variables of a model."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

Tree = Any  # a tree of arrays


def update(
  averages: Tree, variables: Tree, step: Int[Array, ""], decay: float
) -> Tree:
  """Returns the moving averages after a training step.

  BatchNorm's statistics are averaged as the parameters are, since they belong
  together. The first steps count more than `decay` says, as in TensorFlow's
  `ExponentialMovingAverage`, so that the random initialization is forgotten.
  What does not change, such as a frozen parameter, is equal to its average to
  the last bit.

  Args:
    averages: before the step.
    variables: after the step.
    step: number of steps before this one.
    decay: how much of the averages each later step keeps, `ema_decay`.
  """
  t = step.astype(jnp.float32)
  rate = 1 - jnp.minimum(decay, (1 + t) / (10 + t))
  return jax.tree.map(
    lambda old, new: old + rate * (new - old), averages, variables
  )
