"""The training loop: epochs of steps, and what happens between them."""

import contextlib
import os
import pathlib
import time
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from fer_jax import __version__
from fer_jax import config as configs
from fer_jax.data import pipeline
from fer_jax.training import data_parallel, flat_params, train_setup
from fer_jax.training.checkpoints import Checkpoints, Info
from fer_jax.training.logging import summary
from fer_jax.training.logging.progress import Progress
from fer_jax.training.logging.run_logger import Journal
from fer_jax.training.loop_state import Position, no_sums
from fer_jax.training.optim import optimizers
from fer_jax.training.runtime.compilation_cache import CompileTimes
from fer_jax.training.runtime.profiler import Trace
from fer_jax.training.runtime.signals import Interrupted, StopRequest
from fer_jax.training.split_evaluation import Evaluator
from fer_jax.training.stepping import Pending, Stepper
from fer_jax.training.train_state import TrainState, Tree, empty_like
from fer_jax.training.workdir import claim

AfterEpoch = Callable[[Info], None]  # of its number and its metrics


def train(
  config: ConfigDict,
  workdir: str | os.PathLike[str],
  after_epoch: AfterEpoch = lambda metrics: None,
  test: bool = True,
) -> Info:
  """Trains until the last epoch, early stopping or a signal; resumes a workdir.

  Args:
    config: as `configs.default` describes.
    workdir: where checkpoints, metrics and pictures go. What it holds of the
      same configuration is gone on with.
    after_epoch: called once an epoch is saved; what it raises ends the run
      there, to be gone on with.
    test: whether the best epoch is evaluated on `test` too, at the end.

  Returns:
    The summary: `best_epoch`, `validation_loss`, `validation_accuracy`,
    `test_loss` and `test_accuracy` where that split has rows, the numbers of
    rows as `validation_count` and `test_count`, `seconds`,
    `images_per_second`.

  Raises:
    UserError: bad input, a full disk, or a loss that is no number.
    Interrupted: SIGINT or SIGTERM came; the state is saved.
  """
  workdir = pathlib.Path(workdir)
  parts = train_setup.build(config)
  if not (workdir / "config.json").exists():
    parts.start  # noqa: B018 (weights that do not fit leave no workdir behind)
  with (
    claim(workdir, config, jax.process_index() == 0),
    contextlib.closing(Run(parts, workdir)) as run,
    StopRequest() as stop_request,
  ):
    return run.train(stop_request, after_epoch, test)


class Run(Stepper):
  """One run in its workdir."""

  def __init__(
    self,
    parts: train_setup.Setup,
    workdir: pathlib.Path,
    progress: Progress | None = None,
  ):
    """Opens the workdir, and goes on from what it holds.

    Args:
      parts: of the run.
      workdir: of the run.
      progress: in place of the run's own, for one that is not alone: then
        others tell how long things took to compile.
    """
    compile_times = None if progress else CompileTimes()
    config = parts.config
    self.config = config
    self.workdir = workdir
    self.setup = parts
    self.spread = parts.spread
    self.checkpoints = Checkpoints(workdir, config.checkpoint.keep)
    self.evaluator = Evaluator(self.setup)
    self.iterator = pipeline.training_batches(
      self.setup.dataset.split("train"), self.setup.order, config.data_loader
    )
    self.position = Position()
    self.state = self._restored_state()
    self.steps = self.setup.steps_at(self.position.epoch)
    self.steps_per_epoch = self.setup.order.steps_per_epoch
    self.journal = Journal(
      config,
      workdir,
      self.steps_per_epoch,
      self.position.step or None,
      compile_times,
      progress,
    )
    self.trace = Trace(workdir / "profile") if config.profile else None
    self._compile()

  def train(
    self, stop_request: StopRequest, after_epoch: AfterEpoch, test: bool
  ) -> Info:
    """Trains what is left and sums it up."""
    inputs = self.setup.spread.replicate(self.setup.inputs)
    data = self.setup.resident(self.setup.dataset.split("train"))
    self.journal.progress.write(
      summary.opening(self.setup, str(self.workdir), self.position.step)
    )
    while not self._finished:
      self._train_epoch(data, inputs, stop_request)
      if self._evaluates:
        after_epoch(self._end_epoch())
      else:
        self._skip_evaluation()
      self._leave_if(stop_request)
    return self._finish(test)

  def close(self) -> None:
    """Waits for checkpoints that are being written, closes files."""
    if self.trace:
      self.trace.close()
    self.journal.close()
    self.checkpoints.close()

  @property
  def progress(self) -> Progress:
    """What a person sees."""
    return self.journal.progress

  @property
  def _finished(self) -> bool:
    done = self.position.epoch >= self.config.num_epochs
    return done or self.setup.stopping.should_stop

  @property
  def _evaluates(self) -> bool:
    """Whether the current epoch ends with an evaluation and a checkpoint."""
    epoch = self.position.epoch + 1
    every = self.config.eval_every_epochs
    return epoch % every == 0 or epoch >= self.config.num_epochs

  def _skip_evaluation(self) -> None:
    """Ends the current epoch without an evaluation or a checkpoint."""
    self.journal.means(self.position, self.position.sums)  # Finite, or raises.
    self.position.epoch += 1
    self.position.sums = no_sums()
    self._thaw()

  def _end_epoch(self, validation: dict[str, float] | None = None) -> Info:
    """Evaluates, tells and saves.

    Args:
      validation: the split's loss and accuracy, where they are known.

    Returns:
      The number of the epoch and its metrics.
    """
    position, started = self.position, time.monotonic()
    train = self.journal.means(position, position.sums)
    variables = self.state.eval_variables()
    if validation is None:
      validation = self.evaluator(variables, "validation")
    self.journal.check_finite(position, validation["loss"], "validation loss")
    observed = self.setup.spread.fetch(self.observe(self.state, self.no_sums))
    metrics = {
      "train_loss": train["loss"],
      "train_accuracy": train["accuracy"],
      "validation_loss": validation["loss"],
      "validation_accuracy": validation["accuracy"],
    }
    position.epoch += 1
    position.sums = no_sums()
    position.seconds += time.monotonic() - started
    best = self.setup.stopping.update(
      position.epoch, metrics[self.config.best_metric]
    )
    self.journal.epoch(
      position,
      {
        **metrics,
        "learning_rate": float(observed["learning_rate"]),
        "best": best,
      },
    )
    self._lower_learning_rate(validation["loss"])
    self._thaw()
    if best:
      host = self.setup.spread.fetch(variables)
      self.checkpoints.save_best(position.step, host, self._info())
    self.save()
    return {"epoch": position.epoch, **metrics}

  def _finish(self, test: bool) -> Info:
    """Evaluates the best epoch, on `test` for the first time, and sums up."""
    spread, splits = self.setup.spread, self.setup.dataset.splits
    trained = self.state.eval_variables()
    best = self.checkpoints.restore_best(empty_like(spread.fetch(trained)))
    variables = spread.replicate(flat_params.pack_as(trained, best))
    metrics: Info = {"best_epoch": self.setup.stopping.best_epoch}
    for split in ("validation", "test") if test else ("validation",):
      if split in splits:
        for name, value in self.evaluator(variables, split).items():
          metrics[f"{split}_{name}"] = value
        metrics[f"{split}_count"] = len(splits[split])
    return self.journal.end(self.position, metrics)

  def _restored_state(self) -> TrainState:
    """The state to start from, on the devices; sets the position."""
    if self.checkpoints.latest_step is None:
      state = self.setup.first_state()
    else:
      info = self.checkpoints.info()
      train_setup.check_rows(self.setup, info["num_rows"])
      self.position = Position.from_json(info["position"])
      like = empty_like(self.setup.state_shapes(self.position.epoch))
      state, _ = self.checkpoints.restore(like, self.iterator)
      self.setup.stopping.restore(self.position.stopping)
      if self.setup.plateau and self.position.plateau:
        self.setup.plateau.restore(self.position.plateau)
    steps = self.setup.steps_at(self.position.epoch)
    return self.setup.spread.replicate(steps.flatten(state))

  def _compile(self) -> None:
    """Makes the compiled calls; each compiles when it is first used."""
    spread, steps = self.setup.spread, self.steps
    self.steps_per_call = train_setup.steps_per_call(self.config)
    self.calls = {
      stacked: data_parallel.training_call(spread, steps, stacked)
      for stacked in (False, True)
    }
    self.observe = data_parallel.observation_call(spread)
    self.no_sums = spread.replicate(no_sums())

  def next_batch(self, count: int) -> Tree:
    """The next batch, or `count` of them stacked, over the devices."""
    if count == 1:
      return self.setup.spread.shard(next(self.iterator))
    order, feed = self.setup.order, self.setup.config.data_loader
    batches = pipeline.take(self.iterator, order, feed, count)
    return self.setup.spread.shard(batches, stacked=True)

  def _tell(self, pending: Pending) -> None:
    """Tells of what was observed at a step, once it has arrived."""
    if pending:
      step, observed = pending
      observed = self.setup.spread.fetch(observed)
      rate = float(observed["learning_rate"])
      self.journal.step(self.position, step, observed["sums"], rate)

  def _lower_learning_rate(self, validation_loss: float) -> None:
    plateau = self.setup.plateau
    if plateau:
      factor = plateau.update(validation_loss)
      opt_state = optimizers.set_lr_factor(self.state.opt_state, factor)
      self.state = self.state.replace(opt_state=opt_state)

  def _thaw(self) -> None:
    """From here on trains what the configuration thaws after this epoch."""
    spread, epoch = self.setup.spread, self.position.epoch
    steps = self.setup.steps_at(epoch)
    if steps.frozen != self.steps.frozen:
      state = steps.thaw(spread.fetch(self.state), self.setup.inputs)
      self.state = spread.replicate(steps.flatten(state))
      self.steps = steps
      self._compile()
      self.journal.progress.write(self.setup.freezing.describe(epoch))

  def save(self) -> None:
    """Saves all, unless the running epoch's loss is no number."""
    if self.position.sums.count:
      self.journal.means(self.position, self.position.sums)
    state = self.setup.spread.fetch(self.state)
    self.checkpoints.save(
      self.position.step, state, self.iterator, self._info()
    )

  def _info(self) -> Info:
    """What a checkpoint says beside its arrays."""
    plateau = self.setup.plateau
    self.position.stopping = self.setup.stopping.state()
    self.position.plateau = plateau.state() if plateau else None
    return {
      "fer_jax": __version__,
      "config": configs.to_json(self.config),
      "class_names": list(self.setup.dataset.class_names),
      "image_shape": list(self.setup.dataset.image_shape),
      "num_rows": self.setup.order.num_rows,
      "position": self.position.to_json(),
    }

  def _leave_if(self, stop_request: StopRequest) -> None:
    if stop_request.signal_number and not self._finished:
      self.checkpoints.close()
      told = summary.interrupted(self.position, str(self.workdir))
      raise Interrupted(told, stop_request.signal_number)
