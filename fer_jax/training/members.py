"""Runs that are trained together: each in its workdir, all in one call."""

import contextlib
import pathlib
import time
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from fer_jax.errors import UserError
from fer_jax.training import data_parallel, train_loop, train_setup
from fer_jax.training.checkpoints import Info
from fer_jax.training.logging import summary
from fer_jax.training.logging.progress import Progress
from fer_jax.training.loop_state import Position
from fer_jax.training.runtime.signals import Interrupted, StopRequest
from fer_jax.training.stepping import Pending, Stepper
from fer_jax.training.train_state import Tree

Outcome = Info | Exception


class AllLeft(Exception):
  """No run of a group is left to train."""


class Voice(Progress):
  """What one run says among others: lines with its name, and its speed."""

  def __init__(self, parts: train_setup.Setup, name: str):
    config, steps = parts.config, parts.order.steps_per_epoch
    super().__init__(config.num_epochs, steps, config.batch_size, show=False)
    self._name = name
    self._of_all: Progress | None = None
    self._num_runs = 1

  def join(self, of_all: Progress, num_runs: int, epoch: int) -> None:
    """Speaks above the line of so many runs, of an epoch from 1."""
    self._of_all, self._num_runs = of_all, num_runs
    self.start_epoch(epoch)

  @property
  def epoch_images_per_second(self) -> float | None:
    """The run's share of the images of all."""
    rate = self._of_all and self._of_all.epoch_images_per_second
    return rate / self._num_runs if rate else None

  def write(self, line: str) -> None:
    """Prints a line with the run's name."""
    if self._of_all:
      self._of_all.write(f"{self._name}  {line}")


class Member(train_loop.Run):
  """A run whose steps a group makes.

  Attributes:
    voice: what it says.
    outcome: its summary, or what it ended with; None while it is trained.
  """

  def __init__(
    self, parts: train_setup.Setup, workdir: pathlib.Path, name: str
  ):
    self.voice = Voice(parts, name)
    self.outcome: Outcome | None = None
    super().__init__(parts, workdir, self.voice)

  @contextlib.contextmanager
  def leaving(self, on: type[Exception] = UserError) -> Iterator[None]:
    """Ends this run, and no other, where what is done here fails."""
    try:
      yield
    except on as e:
      self.outcome = e

  def end_epoch(
    self, validation: dict[str, float], after_epoch: train_loop.AfterEpoch
  ) -> None:
    """Tells and saves."""
    metrics: Info | None = None
    with self.leaving():
      metrics = self._end_epoch(validation)
    if metrics is not None:
      with self.leaving(on=Exception):
        after_epoch(metrics)

  @property
  def goes_on(self) -> bool:
    """Whether there is something left to train."""
    return self.outcome is None and not self._finished

  def sum_up(self, test: bool) -> None:
    """Evaluates the best epoch of a run that has come to its end."""
    if self.outcome is None and self._finished:
      with self.leaving():
        self.outcome = self._finish(test)

  def close(self) -> None:
    """Waits for checkpoints that are being written, closes files."""
    with self.leaving():
      super().close()


class Group(Stepper):
  """Runs that stand at the same step, stacked until an epoch's end at most.

  Attributes:
    members: the runs. Their states are here and not theirs, until they are
      given back.
  """

  def __init__(
    self, members: Sequence[Member], num_slots: int, progress: Progress
  ):
    """Takes the runs' states.

    Args:
      members: at the same step.
      num_slots: of the compiled step, at least as many as runs. What is left
        over repeats the first run.
      progress: of all.
    """
    first = members[0]
    self.members = members
    self.config, self.spread, self.trace = (
      first.config,
      first.spread,
      first.trace,
    )
    self.steps_per_epoch = first.steps_per_epoch
    self.steps_per_call = first.steps_per_call
    self.observe = first.observe
    self.calls = {
      stacked: data_parallel.training_call(
        self.spread, first.steps, stacked, together=True
      )
      for stacked in (False, True)
    }
    self._progress = progress
    self._slots = [*members, *[first] * (num_slots - len(members))]
    self._seconds = [member.position.seconds for member in members]
    sums = [member.position.sums for member in self._slots]
    self.position = Position(
      first.position.step,
      first.position.epoch,
      jax.tree.map(lambda *x: np.stack(x), *sums),
    )
    self.state = data_parallel.stack([member.state for member in self._slots])
    for member in members:
      member.state = None  # One copy is enough for the device.

  @property
  def progress(self) -> Progress:
    """What a person sees."""
    return self._progress

  def train(
    self,
    data: Tree,
    stop_request: StopRequest,
    until: int,
    after_epoch: Sequence[train_loop.AfterEpoch],
  ) -> None:
    """Trains up to a step, and gives the states back.

    Args:
      data: the resident arrays.
      stop_request: asked after every call.
      until: a step of the running epoch, or its end.
      after_epoch: of each run.

    Raises:
      AllLeft: each has ended with an error.
      Interrupted: that was asked for; all is saved.
    """
    position, end = self.position, self.epoch_end
    for member in self.members:
      member.voice.join(self.progress, len(self.members), position.epoch + 1)
    inputs = data_parallel.stack([slot.setup.inputs for slot in self._slots])
    inputs = self.spread.replicate(inputs)
    try:
      self._train_epoch(data, inputs, stop_request, until)
    finally:
      self.progress.close()
    if until < end:
      self._give_back()
      return
    started = time.monotonic()
    validation = self.members[0].evaluator.together(
      self.state.eval_variables(), "validation"
    )
    position.seconds += time.monotonic() - started
    self._give_back()
    position.epoch += 1
    for member, of_run, hook in zip(
      self.members, validation, after_epoch, strict=False
    ):
      if member.outcome is None:
        member.end_epoch(of_run, hook)
    if any(member.goes_on for member in self.members):
      self._leave_if(stop_request)

  def next_batch(self, count: int) -> Tree:
    """The next batch of each, or `count` of them, stacked."""
    batches = [member.next_batch(count) for member in self.members]
    batches += batches[:1] * (len(self._slots) - len(batches))
    return jax.tree.map(lambda *x: np.stack(x), *batches)

  def _tell(self, pending: Pending) -> None:
    """Tells each run's of what was observed; ends those that went wrong."""
    if not pending:
      return
    step, observed = pending[0], self.spread.fetch(pending[1])
    self.progress.log({}, step - self.epoch_end + self.steps_per_epoch)
    for i, member in enumerate(self.members):
      if member.outcome is None:
        of_run = jax.tree.map(lambda x, i=i: x[i], observed)
        rate = float(of_run["learning_rate"])
        with member.leaving():
          member.journal.step(member.position, step, of_run["sums"], rate)
    if all(member.outcome is not None for member in self.members):
      raise AllLeft

  def save(self) -> None:
    """Saves each run."""
    self._give_back()
    for member in self.members:
      if member.outcome is None:
        with member.leaving():
          member.save()
      member.state = None

  def _leave_if(self, stop_request: StopRequest) -> None:
    if stop_request.signal_number:
      for member in self.members:
        member.checkpoints.close()
      told = summary.interrupted(
        self.position, f"the workdirs of {len(self.members)} runs"
      )
      raise Interrupted(told, stop_request.signal_number)

  def _give_back(self) -> None:
    """Tells each run where it stands, with what state."""
    position = self.position
    for i, member in enumerate(self.members):
      member.state = data_parallel.pick(self.state, i)
      member.position.step = position.step
      member.position.seconds = self._seconds[i] + position.seconds
      member.position.sums = jax.tree.map(lambda x, i=i: x[i], position.sums)
