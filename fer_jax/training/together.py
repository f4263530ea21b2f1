"""Several small runs at once on one device, by one compiled step.

A small model leaves most of an accelerator idle. Runs of equal steps, which
differ in seeds and rates only, are stacked and stepped through by `jax.vmap`.
All else is each run's own, and as if it were alone: its order of images and
its random numbers, its workdir, when it stops, and where it is gone on with.
"""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Sequence

import jax
from ml_collections import ConfigDict

from fer_jax.errors import UserError
from fer_jax.training import alike, train_setup
from fer_jax.training.checkpoints import Info
from fer_jax.training.logging import summary
from fer_jax.training.logging.progress import Progress
from fer_jax.training.members import AllLeft, Group, Member, Outcome
from fer_jax.training.runtime.compilation_cache import CompileTimes
from fer_jax.training.runtime.signals import StopRequest
from fer_jax.training.train_state import Tree
from fer_jax.training.workdir import claim

AfterEpoch = Callable[[int, Info], None]  # of a run's place and its metrics


def train_together(
  configs: Sequence[ConfigDict],
  workdirs: Sequence[str | os.PathLike[str]],
  after_epoch: AfterEpoch = lambda run, metrics: None,
  test: bool = True,
) -> list[Outcome]:
  """Trains runs at once, each as `loop.train` does; resumes their workdirs.

  What a run leaves in its workdir is what it leaves alone, but for rounding and
  the speeds and times, which are those of a run among others. It can be gone on
  with alone, and here with what was begun alone; runs that are behind are
  trained first, until they have caught up.

  Args:
    configs: one for each run; they differ in `alike.VARYING` only.
    workdirs: one for each run.
    after_epoch: called with the place of a run in `configs`, the number of the
      epoch and its metrics, once that is saved. What it raises (an Exception)
      ends that run there, to be gone on with; the others go on.
    test: whether best epochs are evaluated on `test` too, at the end.

  Returns:
    For each run its summary, as of `loop.train`, or the error it ended with:
    the UserError of a loss that is no number, or what `after_epoch` raised.

  Raises:
    UserError: the runs cannot be trained together, on this device, or one of
      them not at all. No step was made, but for a device without the memory.
    Interrupted: SIGINT or SIGTERM came; all runs are saved.
  """
  paths = [pathlib.Path(workdir) for workdir in workdirs]
  if not configs or len(configs) != len({path.resolve() for path in paths}):
    raise UserError(
      f"{len(configs)} configurations need as many workdirs, each its own, but"
      f" there are {', '.join(map(str, paths)) or 'none'}"
    )
  alike.check(configs)
  compile_times = CompileTimes()
  all_parts = _build(configs, paths)
  width = max(len(path.name) for path in paths)
  with contextlib.ExitStack() as stack:
    members = []
    for config, parts, path in zip(configs, all_parts, paths, strict=True):
      stack.enter_context(claim(path, config, write=True))
      members.append(Member(parts, path, f"{path.name:{width}}"))
      stack.callback(members[-1].close)
    together = _Together(members, after_epoch, test, compile_times)
    with StopRequest() as stop_request:
      together.train(stop_request)
  return [member.outcome for member in members if member.outcome is not None]


def _build(
  configs: Sequence[ConfigDict], paths: Sequence[pathlib.Path]
) -> list[train_setup.Setup]:
  """The parts of each run, on one data set, checked."""
  first = train_setup.build(configs[0])
  if first.spread.mode != "jit":
    raise UserError(
      f"--config.parallel={configs[0].parallel} spreads a batch over"
      f" {first.spread.num_devices} devices ({first.spread.mode}), but runs are"
      " trained together on one: give --config.parallel=jit, or train them one"
      " by one"
    )
  rest = [train_setup.build(config, first.dataset) for config in configs[1:]]
  for parts, path in zip([first, *rest], paths, strict=True):
    if not (path / "config.json").exists():
      parts.start  # noqa: B018 (weights that do not fit leave no workdir)
  return [first, *rest]


class _Together:
  """Trains runs group by group, by where they stand."""

  def __init__(
    self,
    members: Sequence[Member],
    after_epoch: AfterEpoch,
    test: bool,
    compile_times: CompileTimes,
  ):
    self._members = members
    self._after_epoch = {
      id(member): functools.partial(after_epoch, i)
      for i, member in enumerate(members)
    }
    self._test = test
    self._compile_times: CompileTimes | None = compile_times
    self._sizes: list[int] = []  # of groups that steps were compiled for
    self._progress: tuple[int, Progress] | None = None
    for member in members[1:]:  # One copy of the splits is enough.
      member.evaluator = members[0].evaluator

  def train(self, stop_request: StopRequest) -> None:
    """Trains what is left of each run and sums it up."""
    first = self._members[0]
    data = first.setup.resident(first.setup.dataset.split("train"))
    live = self._live()
    self._sizes = [len(live)]
    if live:
      self._progress_of(len(live)).write(self._opening())
    try:
      while live:
        self._train_those_behind(live, data, stop_request)
        live = self._live()
    except jax.errors.JaxRuntimeError as e:
      if "RESOURCE_EXHAUSTED" not in str(e):
        raise
      raise UserError(
        f"the device has not enough memory for {len(live)} runs at once: train"
        " fewer together, or one by one; what was saved can be gone on with"
      ) from e

  def _live(self) -> list[Member]:
    """Those with something left to train; the others are summed up."""
    for member in self._members:
      member.sum_up(self._test)
    return [member for member in self._members if member.outcome is None]

  def _train_those_behind(
    self, live: Sequence[Member], data: Tree, stop_request: StopRequest
  ) -> None:
    """Trains those furthest behind until the next ones, or the epoch's end."""
    steps = sorted({member.position.step for member in live})
    members = [m for m in live if m.position.step == steps[0]]
    progress = self._progress_of(len(members))
    group = Group(members, self._num_slots(len(members)), progress)
    until = min([group.epoch_end, *steps[1:]])
    hooks = [self._after_epoch[id(member)] for member in members]
    with contextlib.suppress(AllLeft):
      group.train(data, stop_request, until, hooks)
    if self._compile_times:  # By now every program has been needed.
      progress.write(self._compile_times.describe())
      self._compile_times = None

  def _num_slots(self, num_runs: int) -> int:
    """The size of a group: more than its runs, rather than compile again.

    Up to twice as many: what is computed for nothing is less than half.
    """
    fitting = [n for n in self._sizes if num_runs <= n < 2 * num_runs]
    if not fitting:
      self._sizes.append(num_runs)
    return min(fitting, default=num_runs)

  def _progress_of(self, num_runs: int) -> Progress:
    """The line of so many runs; goes on where their number is the same."""
    if self._progress is None or self._progress[0] != num_runs:
      config = self._members[0].config
      steps = self._members[0].steps_per_epoch
      batch_size = config.batch_size * num_runs
      progress = Progress(config.num_epochs, steps, batch_size)
      self._progress = num_runs, progress
    return self._progress[1]

  def _opening(self) -> str:
    """Says what is trained, on what, and where it goes."""
    members = self._members
    names = [str(member.workdir) for member in members]
    step = min(member.position.step for member in members)
    where = f"{', '.join(names)} ({len(members)} runs together)"
    return summary.opening(members[0].setup, where, step)
