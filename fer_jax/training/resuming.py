"""Resuming a run, also with more epochs or another batch size.

`configs.EXTENDABLE_FIELDS` are the fields that may change.
"""

from collections.abc import Sequence

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.errors import UserError
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.experiment import Experiment
from fer_jax.training.loop_state import LoopState
from fer_jax.training.optim import optimizers
from fer_jax.training.run_checkpoints import RunCheckpoints
from fer_jax.training.train_batches import TrainBatches
from fer_jax.training.train_state import TrainState, empty_like
from fer_jax.training.workdir import check_extends


def restore(
  experiment: Experiment,
  checkpoints: RunCheckpoints | Checkpoints,
  batches: TrainBatches,
) -> tuple[LoopState, TrainState, str]:
  """Restores the latest checkpoint, and moves `batches` to its next batch.

  Args:
    experiment: of the new configuration; `check_same_data` has passed.
    checkpoints: the run's.
    batches: of the same experiment.

  Returns:
    The states, and what the configuration changes from there; "": nothing.

  Raises:
    UserError: the configuration is another, or the run is finished and would
      not change.
  """
  info, config = checkpoints.info(), experiment.config
  assert info is not None
  loop = LoopState.restore(config, info)
  like = empty_like(experiment.state_shapes(loop.epoch))
  before = configs.from_json(info["config"])
  if not (changed := configs.differences(before, config, ("loss.teacher",))):
    state, _ = checkpoints.restore(like, batches.iterator)
    return loop, state, ""
  check_extends(before, config, "the workdir")
  if LoopState.restore(before, info).is_finished(before.num_epochs):
    _check_continues(loop, config, changed)
  state, _ = checkpoints.restore(like, None)
  state = _change_batch_size(experiment, before.batch_size, loop, state)
  if not loop.is_finished(config.num_epochs):
    batches.move_to(loop.next_batch)
  return (
    loop,
    state,
    f"resuming with {', '.join(changed)}; the learning rate follows the"
    f" schedule of {config.num_epochs} epochs from here",
  )


def _check_continues(
  loop: LoopState, config: ConfigDict, changed: Sequence[str]
) -> None:
  """Checks that changes let a finished run continue.

  Args:
    loop: as restored.
    config: the new configuration.
    changed: its differences from that of the checkpoint.

  Raises:
    UserError: they do not.
  """
  if loop.is_finished(config.num_epochs):
    stopped = loop.early_stopping.should_stop
    raise UserError(
      f"the run is finished after {loop.epoch} epochs, which"
      f" {', '.join(changed)} does not change: use num_epochs above"
      f" {loop.epoch}{' and early_stopping.patience=0' * stopped}, or another"
      " workdir"
    )


def _change_batch_size(
  experiment: Experiment, batch_size: int, loop: LoopState, state: TrainState
) -> TrainState:
  """Adapts a restored run to another batch size.

  The epoch goes on behind the images it has seen, and the schedule at the same
  fraction of an epoch. Numbers of steps keep counting up.

  Args:
    experiment: of the new configuration.
    batch_size: before.
    loop: as restored; its `step_offset` is changed.
    state: as restored.

  Returns:
    The state with the number of updates that the schedule counts.
  """
  config, order = experiment.config, experiment.batch_order
  if batch_size == config.batch_size:
    return state
  steps_before = order.num_rows // batch_size
  num_seen = (loop.next_batch - loop.epoch * steps_before) * batch_size
  # A batch that was seen in part is trained on whole.
  batch = loop.epoch * order.steps_per_epoch + num_seen // config.batch_size
  loop.step_offset = loop.step - batch
  updates = batch // config.optimizer.accumulate_steps
  opt_state = optimizers.set_rate(state.opt_state, num_updates=updates)
  return state.replace(opt_state=opt_state)
