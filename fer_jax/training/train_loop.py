"""The training loop: set up, restore, train epochs, evaluate, save, sum up."""

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.object_stores import run_mirror, urls
from fer_jax.training import flat_params, rescue
from fer_jax.training.compiled_steps import TrainPrograms, compile_programs
from fer_jax.training.loop_state import crosses_multiple
from fer_jax.training.metrics import Metrics
from fer_jax.training.optim import optimizers
from fer_jax.training.run_setup import Run, first_state, meet, set_up
from fer_jax.training.runtime.compilation import ParallelCompiler
from fer_jax.training.runtime.process_group import ProcessGroup
from fer_jax.training.runtime.signals import StopNow, deadline_after
from fer_jax.training.saving import save_and_stop, save_best, save_checkpoint
from fer_jax.training.train_result import TrainResult
from fer_jax.training.train_state import TrainState, Tree

# Called with the number and the metrics of an epoch that has been saved.
AfterEpoch = Callable[[dict[str, Any]], None]


def train_and_evaluate(
  config: ConfigDict,
  workdir: str | os.PathLike[str],
  after_epoch: AfterEpoch = lambda metrics: None,
  evaluate_test: bool = True,
  deadline: float | None = None,
) -> TrainResult:
  """Trains a model, or resumes the run that a workdir holds.

  Training ends after the last epoch, by early stopping, or at a signal. Then
  the best epoch is evaluated. A resumed run ends with the same numbers as one
  that was never interrupted.

  Args:
    config: as `get_config` returns it.
    workdir: where checkpoints, metrics and curves are written: a folder, or a
      URL of an object store (`s3://BUCKET/RUN`, `gs://BUCKET/RUN`).
    after_epoch: is called after each evaluated epoch with `epoch` and loss and
      accuracy (`train_loss`, `validation_accuracy`, ...). An exception that it
      raises ends the run there, to be resumed.
    evaluate_test: whether the best epoch is also evaluated on the test split.
    deadline: when to stop, in the time of `time.monotonic`; None is
      `config.max_minutes` after this call.

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
  configs.require_config(config)
  deadline = deadline or deadline_after(config.max_minutes)
  urls.require_named(workdir)
  place = urls.to_path(workdir)
  with contextlib.ExitStack() as stack:
    group = stack.enter_context(ProcessGroup())
    folder = pathlib.Path(place.name)  # Only the first process uses it.
    if group.is_first:
      folder = stack.enter_context(run_mirror.opened(place))
    run, state = set_up(config, folder, str(place), group, stack, deadline)
    state = train_epochs(run, state, after_epoch)
    result = evaluate_best(run, state, evaluate_test)
  return dataclasses.replace(result, workdir=place)


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
    if not run.loop.is_finished(num_epochs) and run.stop.agreed():
      save_and_stop(run, state)
  return first_state(run) if state is None else state


def compile_all(
  run: Run, state: TrainState | None
) -> tuple[TrainPrograms, TrainState]:
  """Compiles training and evaluation in threads, before they are used.

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
      meet(run)
      progress.write(compiler.describe())
    return programs(), state
  except StopNow:
    save_and_stop(run, state)


def train_epoch(
  run: Run, programs: TrainPrograms, state: TrainState
) -> TrainState:
  """Trains the steps that are left of the current epoch."""
  loop, logger, progress = run.loop, run.logger, run.logger.progress
  config, parallel = run.experiment.config, run.experiment.parallel
  steps_per_epoch = run.experiment.steps_per_epoch
  epoch_end = (loop.epoch + 1) * steps_per_epoch + loop.step_offset
  first_batch = loop.epoch * steps_per_epoch
  progress.start_epoch(loop.epoch + 1, loop.next_batch - first_batch)
  started = time.monotonic() - loop.seconds
  metrics = parallel.replicate(loop.metrics)
  while loop.step < epoch_end:
    logger.trace.step(state)
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
    if loop.step == epoch_end:
      break
    stops, every = run.stop.agreed(), config.checkpoint.every_steps
    if stops or crosses_multiple(step_before, loop.step, every):
      logger.flush(loop)
      loop.metrics = parallel.fetch(metrics)
      progress.pause()
      if stops:
        save_and_stop(run, state)
      save_checkpoint(run, state)
      progress.resume()
  logger.flush(loop)
  loop.metrics = parallel.fetch(metrics)
  progress.pause()
  return state


def end_epoch(
  run: Run, programs: TrainPrograms, state: TrainState
) -> tuple[TrainState, dict[str, Any]]:
  """Evaluates, logs and saves the epoch whose steps have been trained.

  At a signal, the trained steps are saved, and resuming evaluates.

  Returns:
    The state for the next epoch; the number and the metrics of this one.
  """
  experiment, loop, logger = run.experiment, run.loop, run.logger
  parallel, started = experiment.parallel, time.monotonic()
  train = logger.means(loop, loop.metrics)
  variables = state.eval_variables()
  validation = evaluate(run, state, variables, "validation")
  logger.check_finite(loop, validation["loss"], "validation loss")
  observed = programs.observe(state, parallel.replicate(Metrics.zeros()))
  learning_rate = float(parallel.fetch(observed)["learning_rate"])
  metrics = {
    "train_loss": train["loss"],
    "train_accuracy": train["accuracy"],
    "validation_loss": validation["loss"],
    "validation_accuracy": validation["accuracy"],
  }
  loop.epoch += 1
  loop.metrics = Metrics.zeros()
  loop.seconds += time.monotonic() - started
  num_epochs = loop.epoch - loop.evaluated_epoch
  loop.evaluated_epoch = loop.epoch
  is_best = loop.early_stopping.update(
    loop.epoch, metrics[experiment.config.best_metric], num_epochs
  )
  metrics_of_epoch = {
    **metrics,
    "learning_rate": learning_rate,
    "best": is_best,
  }
  logger.record_epoch(loop, metrics_of_epoch)
  if loop.plateau:
    factor = loop.plateau.update(validation["loss"], num_epochs)
    opt_state = optimizers.set_rate(state.opt_state, factor=factor)
    state = state.replace(opt_state=opt_state)
  state = experiment.unfreeze(state, loop.epoch)
  if is_best:
    save_best(run, state, variables)
  save_checkpoint(run, state)
  logger.show_epoch()
  return state, {"epoch": loop.epoch, **metrics}


def evaluate(
  run: Run, state: TrainState, variables: Tree, split_name: str
) -> dict[str, float]:
  """Evaluates a split; at a signal, saves the state and stops."""
  try:
    return run.evaluator(variables, split_name, run.stop.signalled)
  except StopNow:
    save_and_stop(run, state)


def skip_evaluation(run: Run, state: TrainState) -> TrainState:
  """Ends an epoch without an evaluation.

  Saves a checkpoint if one is due by the number of steps.
  """
  run.logger.means(run.loop, run.loop.metrics)  # Raises if it is not finite.
  run.loop.epoch += 1
  run.loop.metrics = Metrics.zeros()
  state = run.experiment.unfreeze(state, run.loop.epoch)
  every = run.experiment.config.checkpoint.every_steps
  if crosses_multiple(run.loop.saved_step, run.loop.step, every):
    save_checkpoint(run, state)
  return state


def evaluate_best(
  run: Run, state: TrainState, evaluate_test: bool
) -> TrainResult:
  """Evaluates the best epoch, on the test split for the first time."""
  experiment, stopping = run.experiment, run.loop.early_stopping
  variables = state.eval_variables()
  if stopping.best_epoch is None:  # Its checkpoint is lost, no epoch was left.
    stopping.best_epoch = run.loop.epoch
    save_best(run, state, variables)
  like = experiment.parallel.fetch(variables)
  with rescue.if_removed(run, state):
    best = run.checkpoints.restore_best(like)
  best = flat_params.pack_as(variables, best)
  variables = experiment.parallel.replicate(best)
  scores = {"validation": evaluate(run, state, variables, "validation")}
  if evaluate_test and "test" in experiment.dataset.splits:
    scores["test"] = evaluate(run, state, variables, "test")
  return run.logger.finish(run.loop, scores)
