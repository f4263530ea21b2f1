"""Packs training states into vectors (`flat_params`) for accelerators.

On CPU, where small arrays cost little, and for an optimizer that depends on the
shape of each array, states stay as they are.
"""

from typing import Any

import jax

from fer_jax.ops import dispatch
from fer_jax.training.optim import optimizers
from fer_jax.training.train_state import TrainState
from fer_jax.training.train_step import TrainStep


def pack(step: TrainStep, state: TrainState) -> TrainState:
  """Packs a state for the training program of an accelerator.

  Args:
    step: the training step.
    state: host or device arrays of that step.
  """
  if not _packs(step):
    return state
  return _packed(step, jax.device_get(state))


def pack_shapes(step: TrainStep, shapes: TrainState) -> TrainState:
  """Returns what `pack` makes of a state of these shapes, as shapes."""
  if not _packs(step):
    return shapes
  return jax.eval_shape(lambda state: _packed(step, state), shapes)


def _packs(step: TrainStep) -> bool:
  name = step.config.optimizer.name
  return dispatch.on_accelerator() and name in optimizers.ELEMENTWISE


def _packed(step: TrainStep, state: TrainState) -> TrainState:
  """Packs parameters that are updated alike into the same vector."""

  def group_of(path: str, param: Any) -> tuple[Any, ...]:
    return (
      path in step.frozen,
      optimizers.is_decayed(path, param),
      step.lr_multipliers.get(path, 1.0),
      step.moment_groups.get(path, ""),
    )

  return state.packed(group_of)
