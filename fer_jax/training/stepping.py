"""Steps up to the end of an epoch: of one run, or of several at once."""

import abc
import time
from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from fer_jax.training.data_parallel import Spread
from fer_jax.training.logging.progress import Progress
from fer_jax.training.loop_state import Position, passes
from fer_jax.training.runtime.profiler import Trace
from fer_jax.training.runtime.signals import StopRequest
from fer_jax.training.train_state import Tree

Pending = tuple[int, Tree] | None  # a step, and what was observed there


class Stepper(abc.ABC):
  """What has a state and changes it, step by step.

  Attributes:
    config: what is read of it is how often to log and to save.
    spread: how steps run over devices.
    state: on the devices.
    position: where the state stands.
    steps_per_epoch: batches an epoch.
    steps_per_call: in one compiled call, at most.
    calls: those of one step, and of several.
    observe: `(state, sums) -> what is told of a step`, on the devices.
    progress: what a person sees.
    trace: of the profiler; None for none.
  """

  config: ConfigDict
  spread: Spread
  state: Tree
  position: Position
  steps_per_epoch: int
  steps_per_call: int
  calls: Mapping[bool, Callable[..., Tree]]
  observe: Callable[[Tree, Tree], Tree]
  trace: Trace | None

  @property
  @abc.abstractmethod
  def progress(self) -> Progress:
    """What a person sees."""

  @property
  def epoch_end(self) -> int:
    """The step that ends the running epoch."""
    return (self.position.epoch + 1) * self.steps_per_epoch

  @abc.abstractmethod
  def next_batch(self, count: int) -> Tree:
    """The next batch, or `count` of them stacked, over the devices."""

  @abc.abstractmethod
  def _tell(self, pending: Pending) -> None:
    """Tells of what was observed at a step, once it has arrived."""

  @abc.abstractmethod
  def save(self) -> None:
    """Saves all, at `position`."""

  @abc.abstractmethod
  def _leave_if(self, stop_request: StopRequest) -> None:
    """Raises Interrupted where that was asked for; all is saved."""

  def _train_epoch(
    self,
    data: Tree,
    inputs: Tree,
    stop_request: StopRequest,
    until: int | None = None,
  ) -> None:
    """Trains to the end of the running epoch.

    Args:
      data: the resident arrays.
      inputs: of all steps.
      stop_request: asked after every call.
      until: a step of the epoch to stop at; None is its end.
    """
    spread, position, progress = self.spread, self.position, self.progress
    end = self.epoch_end
    until = end if until is None else until
    done = self.steps_per_epoch - (end - position.step)
    progress.start_epoch(position.epoch + 1, done)
    started = time.monotonic() - position.seconds
    sums = spread.replicate(position.sums)
    pending: Pending = None
    while position.step < until:
      count = min(self.steps_per_call, until - position.step)
      batch = self.next_batch(count)
      if self.trace:
        self.trace.step()
      call = self.calls[count > 1]
      self.state, sums = call(self.state, sums, data, batch, inputs)
      before, position.step = position.step, position.step + count
      position.seconds = time.monotonic() - started
      progress.update(count)
      if passes(before, position.step, self.config.log_every_steps):
        # Told of one log step late, so that the device never waits for it.
        self._tell(pending)
        pending = position.step, self.observe(self.state, sums)
      if position.step < end and (
        stop_request.signal_number
        or passes(before, position.step, self.config.checkpoint.every_steps)
      ):
        self._tell(pending)
        pending = None
        progress.pause()
        position.sums = spread.fetch(sums)
        self.save()
        self._leave_if(stop_request)
        progress.resume()
    self._tell(pending)
    position.sums = spread.fetch(sums)
    progress.pause()
