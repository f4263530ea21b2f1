"""Sets up a run: its parts, its processes, and the state it starts from."""

import contextlib
import dataclasses
import math
import pathlib

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.files import check_writable
from fer_jax.training import resuming
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.experiment import Experiment
from fer_jax.training.initial_weights import InitialWeights
from fer_jax.training.logging import summary
from fer_jax.training.logging.run_logger import RunLogger
from fer_jax.training.loop_state import LoopState
from fer_jax.training.run_checkpoints import RunCheckpoints
from fer_jax.training.runtime.process_group import ProcessGroup
from fer_jax.training.runtime.signals import StopNow, StopRequest
from fer_jax.training.split_evaluation import Evaluator
from fer_jax.training.train_batches import TrainBatches
from fer_jax.training.train_state import TrainState
from fer_jax.training.workdir import CONFIG, claim, write_config


@dataclasses.dataclass
class Run:
  """What the functions of the training loop share."""

  group: ProcessGroup
  experiment: Experiment  # dataset, model and devices: what does not change
  workdir: pathlib.Path
  loop: LoopState  # step, epoch, early stopping: what changes, on the host
  checkpoints: RunCheckpoints
  batches: TrainBatches
  logger: RunLogger  # progress, metric files and curves
  stop: StopRequest  # notes signals and the time limit
  evaluator: Evaluator
  config: ConfigDict  # as in config.json
  weights: InitialWeights | None = None  # of a new run, until it has its state


def set_up(
  config: ConfigDict,
  workdir: pathlib.Path,
  shown: str,
  group: ProcessGroup,
  stack: contextlib.ExitStack,
  deadline: float = math.inf,
) -> tuple[Run, TrainState | None]:
  """Prepares a run, new or resumed, in every process of it.

  Args:
    config: as `configs/default.py` describes it.
    workdir: a folder, where the first process reads and writes.
    shown: what messages call it.
    group: the processes of the run.
    stack: closes at the end what is opened here.
    deadline: when to stop, as `signals.deadline_after` returns it.

  Returns:
    The run, and the training state on the devices; None for a new run.

  Raises:
    UserError: bad input, or a workdir that holds another run.
  """
  if group.is_first:
    check_writable(workdir)  # Before data are prepared.
  experiment = group.first_then_others(lambda: create_experiment(config))
  config = configs.with_dataset_input(config, experiment.dataset.image_shape)
  weights, files = None, None
  if group.is_first:
    if not (workdir / CONFIG).exists():
      # Read first: weights that do not fit leave no workdir behind.
      weights = experiment.read_initial_weights()
    stack.enter_context(claim(workdir, config))
    files = stack.enter_context(Checkpoints(workdir, config.checkpoint.keep))
  checkpoints = RunCheckpoints(files, group)
  warnings = checkpoints.set_aside_damaged()
  if (info := checkpoints.info()) is not None:
    experiment.check_same_data(info)
  # The first process lets a teacher predict, the others read the results.
  batches = group.first_then_others(lambda: TrainBatches(experiment))
  state = None
  if info is None:
    loop = LoopState.create(experiment.config)
    if group.is_first:
      weights = weights or experiment.read_initial_weights()
  else:
    loop, state, changes = resuming.restore(experiment, checkpoints, batches)
    if changes:
      warnings.append(changes)
    if group.is_first:
      write_config(workdir, config)  # Also runtime fields may have changed.
    if loop.early_stopping.best_epoch and not checkpoints.has_best():
      loop.early_stopping.forget_best()
      warnings.append(
        "there is no checkpoint of the best epoch: the next epoch is the best"
      )
    state = experiment.place(state, loop.epoch)
  logger = RunLogger(experiment, workdir, loop, group)
  stack.callback(logger.close)
  logger.progress.write(summary.opening(experiment, shown, loop, weights))
  for text in warnings:
    logger.warn(loop, text.replace(str(workdir), shown))
  stop = stack.enter_context(StopRequest(deadline, group))
  return Run(
    group,
    experiment,
    workdir,
    loop,
    checkpoints,
    batches,
    logger,
    stop,
    Evaluator(experiment),
    config,
    weights,
  ), state


def first_state(run: Run) -> TrainState:
  """Initializes the state of a new run, and puts it on the devices."""
  state = run.experiment.init_state(run.weights)
  run.weights = None
  if run.config.init_from:  # Only the first process has read the weights.
    meet(run)
    state = run.group.share_arrays(state, state)
  return run.experiment.place(state, epoch=0)


def meet(run: Run) -> None:
  """Waits for the other processes; raises StopNow if all of them stop here."""
  run.group.meet(run.stop.check)
  if run.group.count > 1 and run.stop.agreed():
    raise StopNow
