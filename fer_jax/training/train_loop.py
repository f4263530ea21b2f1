"""The training loop: set up, restore, train epochs, evaluate, save, sum up."""

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.object_stores import run_mirror, urls
from fer_jax.training import flat_params, rescue, resuming
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.compiled_steps import TrainPrograms, compile_programs
from fer_jax.training.experiment import Experiment, create_experiment
from fer_jax.training.initial_weights import InitialWeights
from fer_jax.training.logging import summary
from fer_jax.training.logging.run_logger import RunLogger
from fer_jax.training.loop_state import LoopState, crosses_multiple, no_metrics
from fer_jax.training.optim import optimizers
from fer_jax.training.runtime.compilation import ParallelCompiler
from fer_jax.training.runtime.signals import Interrupted, StopNow, StopRequest
from fer_jax.training.split_evaluation import Evaluator
from fer_jax.training.train_batches import TrainBatches
from fer_jax.training.train_result import TrainResult
from fer_jax.training.train_state import TrainState
from fer_jax.training.workdir import claim, write_config

# Called with the number and the metrics of an epoch that has been saved.
AfterEpoch = Callable[[dict[str, Any]], None]


@dataclasses.dataclass
class Run:
  """What the functions of the loop share."""

  experiment: Experiment  # dataset, model and devices: what does not change
  workdir: pathlib.Path
  loop: LoopState  # step, epoch, early stopping: what changes, on the host
  checkpoints: Checkpoints
  batches: TrainBatches
  logger: RunLogger  # progress, metric files and curves
  stop: StopRequest  # notes signals and the time limit
  evaluator: Evaluator
  config: ConfigDict  # as in config.json
  weights: InitialWeights | None = None  # of a new run, until it has its state


def train_and_evaluate(
  config: ConfigDict,
  workdir: str | os.PathLike[str],
  after_epoch: AfterEpoch = lambda metrics: None,
  evaluate_test: bool = True,
) -> TrainResult:
  """Trains a model, or resumes the run that a workdir holds.

  Training ends after the last epoch, by early stopping, or at a signal. Then
  the best epoch is evaluated. A resumed run ends with the same numbers as one
  that was never interrupted.

  Args:
    config: as `configs/default.py` describes it.
    workdir: where checkpoints, metrics and curves are written: a folder, or a
      URL of an object store (`s3://BUCKET/RUN`, `gs://BUCKET/RUN`).
    after_epoch: is called after each evaluated epoch with `epoch` and loss and
      accuracy (`train_loss`, `validation_accuracy`, ...). An exception that it
      raises ends the run there, to be resumed.
    evaluate_test: whether the best epoch is also evaluated on the test split.

  Returns:
    Metrics of every epoch and of the best one, speed, and paths.

  Raises:
    UserError: bad input, a full disk, or a non-finite loss.
    Interrupted: by SIGINT, SIGTERM, SIGHUP or `max_minutes`; all is saved.

  >>> import tempfile
  >>> from fer_jax import recipes
  >>> dataset = {"name": "synthetic_faces", "classes": "", "num_train": 96}
  >>> dataset["data_dir"] = folder = tempfile.mkdtemp()
  >>> fields = {"dataset": dataset, "num_epochs": 1, "model.widths": (4,)}
  >>> config = recipes.get_config("chang_cnn", fields)
  >>> train_and_evaluate(config, f"{folder}/run").best_epoch
  1
  """
  place = urls.to_path(workdir)
  with run_mirror.opened(place, jax.process_index() == 0) as folder:
    result = _train_in(folder, config, after_epoch, evaluate_test, str(place))
  return dataclasses.replace(result, workdir=place)


def _train_in(
  workdir: pathlib.Path,
  config: ConfigDict,
  after_epoch: AfterEpoch,
  evaluate_test: bool,
  shown: str,
) -> TrainResult:
  """Trains in a folder of this machine, which messages call `shown`."""
  experiment = create_experiment(config)
  image_shape = experiment.dataset.image_shape
  config = configs.with_dataset_input(config, image_shape)
  weights = None
  if not (workdir / "config.json").exists():
    # Read first: weights that do not fit leave no workdir behind.
    weights = experiment.read_initial_weights()

  with contextlib.ExitStack() as stack:
    stack.enter_context(claim(workdir, config, jax.process_index() == 0))
    checkpoints = stack.enter_context(
      Checkpoints(workdir, config.checkpoint.keep)
    )
    batches = TrainBatches(experiment)
    warnings = checkpoints.set_aside_damaged()
    state = None
    if checkpoints.latest_step is None:
      loop = LoopState.create(experiment.config)
      weights = weights or experiment.read_initial_weights()
    else:
      loop, state, changes = resuming.restore(experiment, checkpoints, batches)
      if changes:
        warnings.append(changes)
        if jax.process_index() == 0:
          write_config(workdir, config)
      state = experiment.place(state, loop.epoch)
    logger = RunLogger(experiment, workdir, loop.step)
    stack.callback(logger.close)
    logger.progress.write(summary.opening(experiment, shown, loop, weights))
    for text in warnings:
      logger.warn(loop, text.replace(str(workdir), shown))
    stop = stack.enter_context(StopRequest(config.max_minutes))
    evaluator = Evaluator(experiment)
    run = Run(
      experiment,
      workdir,
      loop,
      checkpoints,
      batches,
      logger,
      stop,
      evaluator,
      config,
      weights,
    )
    del weights
    state = train_epochs(run, state, after_epoch)
    return evaluate_best(run, state, evaluate_test)


def first_state(run: Run) -> TrainState:
  """Initializes the state of a new run, and puts it on the devices."""
  state = run.experiment.init_state(run.weights)
  run.weights = None
  return run.experiment.place(state, epoch=0)


def train_epochs(
  run: Run, state: TrainState | None, after_epoch: AfterEpoch
) -> TrainState:
  """Trains and evaluates the epochs that are left.

  Args:
    run: the run.
    state: on the devices; None for a new run.
    after_epoch: as in `train_and_evaluate`.
  """
  config = run.experiment.config
  num_epochs, every = config.num_epochs, config.eval_every_epochs
  step, programs = None, None
  while not run.loop.is_finished(num_epochs):
    if programs is None or step != run.experiment.train_step(run.loop.epoch):
      # At the start, and when parameters have been unfrozen.
      step = run.experiment.train_step(run.loop.epoch)
      if programs:
        freezing = run.experiment.freezing.describe(run.loop.epoch)
        run.logger.progress.write(freezing)
      programs, state = compile_all(run, state)
    assert state is not None
    state = train_epoch(run, programs, state)
    if (run.loop.epoch + 1) % every == 0 or run.loop.epoch + 1 == num_epochs:
      state, metrics = end_epoch(run, programs, state)
      after_epoch(metrics)
    else:
      state = skip_evaluation(run, state)
    if not run.loop.is_finished(num_epochs):
      stop_if_requested(run, state)
  return first_state(run) if state is None else state


def compile_all(
  run: Run, state: TrainState | None
) -> tuple[TrainPrograms, TrainState]:
  """Compiles training and evaluation at the same time, before they are used.

  Args:
    run: the run.
    state: None for that of a new run, which is initialized meanwhile.
  """
  progress, epoch = run.logger.progress, run.loop.epoch

  def show(text: str) -> None:
    run.stop.check()
    progress.show_status(text)

  try:
    with (
      run.stop.immediate(),
      progress.excluded(),
      ParallelCompiler(show) as compiler,
    ):
      shapes = run.experiment.placed_shapes(epoch)
      # First, what takes longest.
      programs = compile_programs(run.experiment, epoch, shapes, compiler)
      run.evaluator.compile(compiler, shapes.eval_variables(), "validation")
      state = first_state(run) if state is None else state
      compiler.wait()
      progress.write(compiler.describe())
    return programs(), state
  except StopNow:
    stop_if_requested(run, state)
    raise


def train_epoch(
  run: Run, programs: TrainPrograms, state: TrainState
) -> TrainState:
  """Trains the steps that are left of the current epoch."""
  loop, logger, progress = run.loop, run.logger, run.logger.progress
  config, parallel = run.experiment.config, run.experiment.parallel
  steps_per_epoch = run.experiment.steps_per_epoch
  epoch_end = (loop.epoch + 1) * steps_per_epoch + loop.step_offset
  progress.start_epoch(loop.epoch + 1, loop.next_batch % steps_per_epoch)
  started = time.monotonic() - loop.seconds
  metrics = parallel.replicate(loop.metrics)
  while loop.step < epoch_end:
    logger.trace.step()
    if epoch_end - loop.step >= programs.steps_per_call:
      num_steps, train = programs.steps_per_call, programs.train_steps
    else:
      num_steps, train = 1, programs.train_step
    state, metrics = train(state, metrics, run.batches.take(num_steps))

    step_before, loop.step = loop.step, loop.step + num_steps
    loop.seconds = time.monotonic() - started
    progress.update(num_steps)
    if crosses_multiple(step_before, loop.step, config.log_every_steps):
      # Logged one log step later, so that the device never waits for the host.
      logger.log_later(loop, programs.observe(state, metrics))
    if loop.step < epoch_end and (
      run.stop
      or crosses_multiple(step_before, loop.step, config.checkpoint.every_steps)
    ):
      logger.flush(loop)
      progress.pause()
      loop.metrics = parallel.fetch(metrics)
      save_checkpoint(run, state)
      stop_if_requested(run, state)
      progress.resume()
  logger.flush(loop)
  loop.metrics = parallel.fetch(metrics)
  progress.pause()
  return state


def end_epoch(
  run: Run, programs: TrainPrograms, state: TrainState
) -> tuple[TrainState, dict[str, Any]]:
  """Evaluates, logs and saves the epoch whose steps have been trained.

  Returns:
    The state for the next epoch; the number and the metrics of this one.
  """
  experiment, loop, logger = run.experiment, run.loop, run.logger
  parallel, started = experiment.parallel, time.monotonic()
  train = logger.means(loop, loop.metrics)
  variables = state.eval_variables()
  validation = run.evaluator(variables, "validation")
  logger.check_finite(loop, validation["loss"], "validation loss")
  observed = programs.observe(state, parallel.replicate(no_metrics()))
  learning_rate = float(parallel.fetch(observed)["learning_rate"])
  metrics = {
    "train_loss": train["loss"],
    "train_accuracy": train["accuracy"],
    "validation_loss": validation["loss"],
    "validation_accuracy": validation["accuracy"],
  }
  loop.epoch += 1
  loop.metrics = no_metrics()
  loop.seconds += time.monotonic() - started
  is_best = loop.early_stopping.update(
    loop.epoch, metrics[experiment.config.best_metric]
  )
  metrics_of_epoch = {
    **metrics,
    "learning_rate": learning_rate,
    "best": is_best,
  }
  logger.record_epoch(loop, metrics_of_epoch)
  if loop.plateau:
    factor = loop.plateau.update(validation["loss"])
    opt_state = optimizers.set_lr_factor(state.opt_state, factor)
    state = state.replace(opt_state=opt_state)
  state = experiment.unfreeze(state, loop.epoch)
  if is_best:
    with rescue.if_removed(run, state):
      run.checkpoints.save_best(
        loop.step, parallel.fetch(variables), checkpoint_info(run)
      )
  save_checkpoint(run, state)
  logger.show_epoch()
  return state, {"epoch": loop.epoch, **metrics}


def skip_evaluation(run: Run, state: TrainState) -> TrainState:
  """Ends an epoch without an evaluation or a checkpoint."""
  run.logger.means(run.loop, run.loop.metrics)  # Raises if it is not finite.
  run.loop.epoch += 1
  run.loop.metrics = no_metrics()
  return run.experiment.unfreeze(state, run.loop.epoch)


def save_checkpoint(run: Run, state: TrainState) -> None:
  """Saves everything, unless the current epoch's loss is non-finite."""
  if run.loop.metrics.count:
    run.logger.means(run.loop, run.loop.metrics)
  host_state = run.experiment.parallel.fetch(state)
  with rescue.if_removed(run, state):
    run.checkpoints.save(
      run.loop.step, host_state, run.batches.iterator, checkpoint_info(run)
    )


def checkpoint_info(run: Run) -> dict[str, Any]:
  """Returns what a checkpoint says beside its arrays."""
  return {**run.experiment.info(), "loop_state": run.loop.to_json()}


def evaluate_best(
  run: Run, state: TrainState, evaluate_test: bool
) -> TrainResult:
  """Evaluates the best epoch, on the test split for the first time."""
  experiment = run.experiment
  with rescue.if_removed(run, state):
    best, _ = run.checkpoints.restore_variables("best")
  best = flat_params.pack_as(state.eval_variables(), best)
  variables = experiment.parallel.replicate(best)
  scores = {"validation": run.evaluator(variables, "validation")}
  if evaluate_test and "test" in experiment.dataset.splits:
    scores["test"] = run.evaluator(variables, "test")
  return run.logger.finish(run.loop, scores)


def stop_if_requested(run: Run, state: TrainState | None) -> None:
  """Saves and raises Interrupted, at a signal or when the time is over.

  Args:
    run: the run.
    state: None while it has not been initialized.
  """
  if run.stop:
    if run.loop.step and state is not None:
      save_checkpoint(run, state)  # Does nothing if this step is saved already.
    run.checkpoints.close()
    message = summary.interrupted(run.loop, run.workdir)
    raise Interrupted(message, run.stop.cause)
