"""The training loop: epochs of steps, and what happens between them."""

import math
import os
import pathlib
import statistics
import time

import grain
import jax
import numpy as np
from ml_collections import ConfigDict

from fer_jax import __version__
from fer_jax import config as configs
from fer_jax.data import pipeline
from fer_jax.errors import UserError
from fer_jax.training import (
  curves,
  optimizers,
  parallel,
  records,
  report,
  setup,
)
from fer_jax.training.checkpoints import Checkpoints, Info
from fer_jax.training.compilation import CompileTimes
from fer_jax.training.evaluator import Evaluator
from fer_jax.training.interruption import Interrupted, StopRequest
from fer_jax.training.position import Position, claim, no_sums
from fer_jax.training.progress import Progress
from fer_jax.training.state import TrainState, Tree
from fer_jax.training.trace import Trace


def train(config: ConfigDict, workdir: str | os.PathLike[str]) -> Info:
  """Trains until the last epoch, early stopping or a signal; resumes a workdir.

  Args:
    config: as `configs.default` describes.
    workdir: where checkpoints, metrics and pictures go. What it holds of the
      same configuration is gone on with.

  Returns:
    The summary: `best_epoch`, `validation_loss`, `validation_accuracy`,
    `test_loss` and `test_accuracy` where that split has rows, `seconds`,
    `images_per_second`.

  Raises:
    UserError: bad input, a full disk, or a loss that is no number.
    Interrupted: SIGINT or SIGTERM came; the state is saved.
  """
  run = Run(config, pathlib.Path(workdir))
  try:
    with StopRequest() as stop_request:
      return run.train(stop_request)
  finally:
    run.close()


class Run:
  """One run in its workdir."""

  def __init__(self, config: ConfigDict, workdir: pathlib.Path):
    self.config = config
    self.workdir = workdir
    self.compile_times = CompileTimes()
    self.setup = setup.build(config)
    self.is_first_process = jax.process_index() == 0
    claim(workdir, config, self.is_first_process)
    self.checkpoints = Checkpoints(workdir, config.checkpoint.keep)
    self.steps_per_epoch = self.setup.order.steps_per_epoch
    self.steps_per_call = setup.steps_per_call(config)
    self.evaluator = Evaluator(self.setup)
    self.position = Position()
    self.iterator = self._iterator()
    self.state = self._restored_state()
    self.records = records.Records(
      workdir,
      self.position.step if self.position.step else None,
      write=self.is_first_process,
    )
    self.progress = Progress(
      config.num_epochs,
      self.steps_per_epoch,
      config.batch_size,
      show=self.is_first_process,
    )
    self.trace = Trace(workdir / "profile") if config.profile else None
    self._compile()

  def train(self, stop_request: StopRequest) -> Info:
    """Trains what is left and sums it up."""
    rng = self.setup.spread.replicate(self.setup.step_rng())
    data = self.setup.resident(self.setup.dataset.split("train"))
    self.progress.write(
      report.opening(self.setup, str(self.workdir), self.position.step)
    )
    while not self._finished:
      self._train_epoch(data, rng, stop_request)
      self._end_epoch()
      self._leave_if(stop_request)
    return self._finish()

  def close(self) -> None:
    """Waits for checkpoints that are being written, closes files."""
    self.progress.close()
    self.records.close()
    self.checkpoints.close()

  @property
  def _finished(self) -> bool:
    done = self.position.epoch >= self.config.num_epochs
    return done or self.setup.stopping.should_stop

  def _train_epoch(
    self, data: Tree, rng: Tree, stop_request: StopRequest
  ) -> None:
    """Trains to the end of the running epoch."""
    spread, position = self.setup.spread, self.position
    end = (position.epoch + 1) * self.steps_per_epoch
    self.progress.start_epoch(
      position.epoch + 1, self.steps_per_epoch - (end - position.step)
    )
    started = time.monotonic() - position.seconds
    sums = spread.replicate(position.sums)
    logged: tuple[int, Tree] | None = None
    while position.step < end:
      count = min(self.steps_per_call, end - position.step)
      batch = self._next_batch(count)
      if self.trace:
        self.trace.step()
      call = self.calls[count > 1]
      self.state, sums = call(self.state, sums, data, batch, rng)
      before, position.step = position.step, position.step + count
      position.seconds = time.monotonic() - started
      self.progress.update(count)
      if _passes(before, position.step, self.config.log_every_steps):
        if logged:  # One log step late, so the device never waits for it.
          self._log(*logged)
        logged = position.step, self.observe(self.state, sums)
      if stop_request.signal_number or (
        position.step < end
        and _passes(before, position.step, self.config.checkpoint.every_steps)
      ):
        self.progress.pause()
        position.sums = spread.fetch(sums)
        self._check_finite(float(position.sums.loss), "training loss")
        if position.step < end:
          self._save()
          self._leave_if(stop_request)
        self.progress.resume()
    if logged:
      self._log(*logged)
    position.sums = spread.fetch(sums)
    self.progress.pause()

  def _end_epoch(self) -> None:
    """Evaluates, records, draws and saves."""
    position, started = self.position, time.monotonic()
    train = position.sums.compute()
    self._check_finite(train["loss"], "training loss")
    variables = self.state.eval_variables()
    validation = self.evaluator(variables, "validation")
    self._check_finite(validation["loss"], "validation loss")
    position.epoch += 1
    position.sums = no_sums()
    metric = {f"validation_{k}": v for k, v in validation.items()}
    best = self.setup.stopping.update(
      position.epoch, metric[self.config.best_metric]
    )
    observed = self.setup.spread.fetch(self.observe(self.state, self._no_sums))
    position.seconds += time.monotonic() - started
    record = {
      "kind": "epoch",
      "epoch": position.epoch,
      "step": position.step,
      "train_loss": train["loss"],
      "train_accuracy": train["accuracy"],
      **metric,
      "learning_rate": float(observed["learning_rate"]),
      "images_per_second": self.progress.epoch_images_per_second,
      "seconds": position.seconds,
      "best": best,
    }
    self._lower_learning_rate(validation["loss"])
    self.records.append(record)
    self.progress.end_epoch({k: v for k, v in record.items() if k != "seconds"})
    if self.is_first_process:
      title = f"{self.config.model.name} on {self.config.dataset.name}"
      curves.draw(
        records.read(self.workdir), self.workdir / "curves.png", title
      )
    if best:
      host = self.setup.spread.fetch(variables)
      self.checkpoints.save_best(position.step, host, self._info())
    self._save()

  def _finish(self) -> Info:
    """Evaluates the best epoch on `test` and sums the run up."""
    spread, stopping = self.setup.spread, self.setup.stopping
    if stopping.best_epoch is None:
      raise UserError(
        f"no epoch of {self.workdir} has a finite validation loss"
      )
    like = _empty_like(spread.fetch(self.state.eval_variables()))
    variables = spread.replicate(self.checkpoints.restore_best(like))
    summary: Info = {
      "kind": "summary",
      "step": self.position.step,
      "epoch": self.position.epoch,
      "best_epoch": stopping.best_epoch,
    }
    for split in ("validation", "test"):
      if split in self.setup.dataset.splits:
        for name, value in self.evaluator(variables, split).items():
          summary[f"{split}_{name}"] = value
    summary["seconds"] = self.position.seconds
    speeds = [
      record["images_per_second"]
      for record in records.read(self.workdir)
      if record["kind"] == "epoch" and record["images_per_second"]
    ]
    summary["images_per_second"] = statistics.median(speeds or [0.0])
    self.records.append(summary)
    self.progress.write(self.compile_times.describe())
    return summary

  def _restored_state(self) -> TrainState:
    """The state to start from, on the devices; sets the position."""
    state = self.setup.init_state()
    if self.checkpoints.latest_step is not None:
      like = _empty_like(state)
      setup.check_rows(self.setup, self.checkpoints.info()["num_rows"])
      state, info = self.checkpoints.restore(like, self.iterator)
      self.position = Position.from_json(info["position"])
      self.setup.stopping.restore(self.position.stopping)
      if self.setup.plateau and self.position.plateau:
        self.setup.plateau.restore(self.position.plateau)
    return self.setup.spread.replicate(state)

  def _iterator(self) -> grain.DatasetIterator:
    return pipeline.training_batches(
      self.setup.dataset.split("train"), self.setup.order, self.config.feed
    )

  def _compile(self) -> None:
    """Makes the compiled calls; each compiles when it is first used."""
    spread, steps = self.setup.spread, self.setup.steps
    self.calls = {
      stacked: parallel.training_call(spread, steps, stacked)
      for stacked in (False, True)
    }
    self.observe = spread.compile(
      lambda state, sums: {
        "sums": sums,
        "learning_rate": optimizers.learning_rate(state.opt_state),
      }
    )
    self._no_sums = spread.replicate(no_sums())

  def _next_batch(self, count: int) -> Tree:
    """The next batch, or `count` of them stacked, over the devices."""
    batches = [next(self.iterator) for _ in range(count)]
    if count == 1:
      return self.setup.spread.shard(batches[0])
    stacked = jax.tree.map(lambda *x: np.stack(x), *batches)
    return self.setup.spread.shard(stacked, stacked=True)

  def _log(self, step: int, observed: Tree) -> None:
    """Records the running epoch's metrics as they were at `step`."""
    observed = self.setup.spread.fetch(observed)
    means = observed["sums"].compute()
    self._check_finite(means["loss"], "training loss")
    step_in_epoch = step - self.position.epoch * self.steps_per_epoch
    self.progress.log(means, step_in_epoch)
    self.records.append(
      {
        "kind": "train",
        "epoch": self.position.epoch + 1,
        "step": step,
        **means,
        "learning_rate": float(observed["learning_rate"]),
        "images_per_second": self.progress.epoch_images_per_second,
      }
    )

  def _check_finite(self, loss: float, name: str) -> None:
    if not math.isfinite(loss):
      rate = self.config.optimizer.learning_rate
      raise UserError(
        f"{name} is {loss} in epoch {self.position.epoch + 1}, not saved: try a"
        f" --config.optimizer.learning_rate below {rate}, or"
        " --config.optimizer.clip_norm=1; checkpoints before it are whole"
      )

  def _lower_learning_rate(self, validation_loss: float) -> None:
    plateau = self.setup.plateau
    if plateau:
      factor = plateau.update(validation_loss)
      opt_state = optimizers.set_lr_factor(self.state.opt_state, factor)
      self.state = self.state.replace(opt_state=opt_state)

  def _save(self) -> None:
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
      raise Interrupted(
        f"interrupted in epoch {self.position.epoch + 1} at step"
        f" {self.position.step}; saved in {self.workdir}: the same command"
        " goes on from there",
        stop_request.signal_number,
      )


def _passes(before: int, after: int, every: int) -> bool:
  """Whether a multiple of `every` lies in (before, after]; 0 never."""
  return every > 0 and before // every != after // every


def _empty_like(tree: Tree) -> Tree:
  return jax.tree.map(lambda x: np.empty(x.shape, x.dtype), tree)
