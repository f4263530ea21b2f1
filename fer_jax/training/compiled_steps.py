"""The compiled programs of training.

The `make_*` functions return jitted functions. Runs in one process share them,
so trials of a sweep whose steps are equal compile once. `compile_programs`
compiles all that training needs in threads, before the first step.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from fer_jax.ops import dispatch
from fer_jax.training.data_parallel import DataParallel
from fer_jax.training.experiment import Experiment
from fer_jax.training.metrics import Metrics
from fer_jax.training.optim import optimizers
from fer_jax.training.runtime import cpu
from fer_jax.training.runtime.compilation import ParallelCompiler
from fer_jax.training.train_batches import example_batch
from fer_jax.training.train_state import Tree
from fer_jax.training.train_step import TrainStep

# For each kind, so many jitted functions are kept for further runs.
_shared = functools.lru_cache(maxsize=4)


@dataclasses.dataclass(frozen=True)
class TrainPrograms:
  """The compiled programs of training.

  Attributes:
    train_step: `(state, metrics, batch) -> (state, metrics)`; the state is
      donated.
    train_steps: the same for the stacked batches of `steps_per_call` steps.
    steps_per_call: steps in one call of `train_steps`.
    observe: `(state, metrics) -> {"metrics", "learning_rate"}`, copies that
      outlive the donated state.
  """

  train_step: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
  train_steps: Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
  steps_per_call: int
  observe: Callable[[Tree, Tree], Tree]


def compile_programs(
  experiment: Experiment, epoch: int, state: Tree, compiler: ParallelCompiler
) -> Callable[[], TrainPrograms]:
  """Starts to compile the programs of training.

  There is one program for single steps; with `steps_per_call` > 1 another one
  for that many. No further one is needed for the rest of an epoch.

  Args:
    experiment: the run's.
    epoch: finished epochs, on which it depends what is frozen.
    state: its shapes on the devices (`Experiment.placed_shapes`).
    compiler: compiles in threads.

  Returns:
    A function that waits for the programs and returns them.
  """
  parallel, step = experiment.parallel, experiment.train_step(epoch)
  data, inputs = experiment.train_data, experiment.device_inputs
  metrics = parallel.replicate(Metrics.zeros())
  batch = example_batch(experiment)
  arguments = state, metrics, data, parallel.shard(batch), inputs
  one_step = _compile_step(parallel, step, arguments, compiler)
  steps_per_call = experiment.config.steps_per_call or 1
  several = None
  if steps_per_call > 1:
    stacked = jax.tree.map(lambda x: np.stack([x] * steps_per_call), batch)
    stacked = parallel.shard(stacked, stacked=True)
    lowered = make_train_steps(parallel, step).lower(
      state, metrics, data, stacked, inputs
    )
    several = compiler.add(f"{steps_per_call} training steps", lowered)
  observe = compiler.add("log", make_observe(parallel).lower(state, metrics))

  def with_constants(program: Any) -> Callable[..., tuple[Tree, Tree]]:
    return lambda state, metrics, batch: program(
      state, metrics, data, batch, inputs
    )

  def wait() -> TrainPrograms:
    train_step = one_step()
    train_steps = several.result() if several else train_step
    return TrainPrograms(
      train_step=with_constants(train_step),
      train_steps=with_constants(train_steps),
      steps_per_call=steps_per_call,
      observe=observe.result(),
    )

  return wait


def _compile_step(
  parallel: DataParallel,
  step: TrainStep,
  arguments: tuple[Tree, ...],
  compiler: ParallelCompiler,
) -> Callable[[], Any]:
  """Starts to compile a single step; returns a function that waits for it."""
  if dispatch.platform() != "cpu":
    lowered = _train_step(parallel, step).lower(*arguments)
    return compiler.add("training step", lowered).result
  lowered = _gradients(parallel, step).lower(*arguments)
  gradients = compiler.add("gradients", lowered)
  shapes, batch_stats, _ = lowered.out_info
  state, inputs = arguments[0], arguments[-1]
  lowered = _update(parallel, step).lower(state, shapes, batch_stats, inputs)
  update = compiler.add("update", lowered)
  return lambda: cpu.TwoProgramStep(gradients.result(), update.result())


def make_train_step(parallel: DataParallel, step: TrainStep) -> Any:
  """Returns a training step that is compiled when it is first called.

  On CPU it is two programs (`cpu.TwoProgramStep`), elsewhere one.

  Args:
    parallel: the devices.
    step: the step of one device.

  Returns:
    `(state, metrics, data, batch, inputs) -> (state, metrics)`; the state is
    donated.
  """
  if dispatch.platform() == "cpu":
    return cpu.TwoProgramStep(
      _gradients(parallel, step), _update(parallel, step)
    )
  return _train_step(parallel, step)


@_shared
def make_train_steps(parallel: DataParallel, step: TrainStep) -> Any:
  """Returns several training steps in one program, a `lax.scan`.

  Args:
    parallel: the devices.
    step: the step of one device.

  Returns:
    The same function as `make_train_step`, of a batch `[steps b ...]`.
  """

  def train_steps(
    state: Tree, metrics: Tree, data: Tree, batches: Tree, inputs: Tree
  ) -> tuple[Tree, Tree]:
    def body(carry: Tree, batch: Tree) -> tuple[Tree, None]:
      state, metrics = carry
      return step(state, metrics, data, batch, inputs), None

    return jax.lax.scan(body, (state, metrics), batches)[0]

  return parallel.jit(train_steps, 3, donate_argnums=(0,), stacked=True)


@_shared
def make_observe(parallel: DataParallel) -> Any:
  """Returns `(state, metrics) -> {"metrics", "learning_rate"}`."""
  return parallel.jit(
    lambda state, metrics: {
      "metrics": metrics,
      "learning_rate": optimizers.learning_rate(state.opt_state),
    }
  )


@_shared
def _train_step(parallel: DataParallel, step: TrainStep) -> Any:
  return parallel.jit(step.__call__, 3, donate_argnums=(0,))


@_shared
def _gradients(parallel: DataParallel, step: TrainStep) -> Any:
  return parallel.jit(step.gradients, 3)


@_shared
def _update(parallel: DataParallel, step: TrainStep) -> Any:
  return parallel.jit(step.update, donate_argnums=(0,))
