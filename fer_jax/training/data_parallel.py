"""How a step runs over devices and processes; no other file knows.

* `jit`: one device.
* `pmap`: all devices; every array has a leading axis of local devices.
* `shard_map`: all devices; `jit` of `shard_map` over the same axis, which JAX
  recommends for new code. Arrays are global, the state lies on every device.

Several processes (`jax.distributed.initialize`) work in both of the latter:
each feeds its share of every batch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fer_jax.errors import UserError, choose
from fer_jax.ops import convolution
from fer_jax.training import flat_params
from fer_jax.training.optim import optimizers
from fer_jax.training.runtime import malloc
from fer_jax.training.train_state import Tree
from fer_jax.training.train_step import Steps

MODES = ("auto", "jit", "pmap", "shard_map")
AXIS = "batch"
# Parameters from which on a second copy counts, and a short wait between two
# steps does not.
_MANY = 1 << 22


class Spread:
  """Places arrays on devices and compiles steps for them.

  Those of one mode are equal.

  Attributes:
    mode: "jit", "pmap" or "shard_map".
    num_devices: devices that share a batch, over all processes.
    axis_name: the axis that steps reduce over; None for one device.
  """

  def __init__(self, mode: str):
    choose("--config.parallel", mode, MODES)
    if mode == "auto":
      mode = "jit" if jax.device_count() == 1 else "pmap"
    if mode == "jit" and jax.process_count() > 1:
      raise UserError(
        f"--config.parallel=jit uses one device, but there are"
        f" {jax.process_count()} processes: choose pmap or shard_map"
      )
    self.mode = mode
    self.num_devices = 1 if mode == "jit" else jax.device_count()
    self.axis_name = None if mode == "jit" else AXIS
    local = np.array(jax.local_devices())
    everywhere = local if mode == "pmap" else np.array(jax.devices())
    self._local = 1 if mode == "jit" else len(local)
    self._mesh = Mesh(everywhere, (AXIS,))

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Spread) and self.mode == other.mode

  def __hash__(self) -> int:
    return hash(self.mode)

  def check_batch(self, flag: str, batch_size: int) -> None:
    """Raises UserError where a batch does not divide over the devices."""
    if batch_size < 1 or batch_size % self.num_devices:
      raise UserError(
        f"--{flag}={batch_size} must be a multiple of the"
        f" {self.num_devices} devices"
      )

  def replicate(self, tree: Tree) -> Tree:
    """Puts a tree of host or single-device arrays on every device."""
    if self.mode == "jit":
      return jax.device_put(tree, jax.local_devices()[0])
    if self.mode == "shard_map":
      return jax.device_put(tree, NamedSharding(self._mesh, P()))
    sharding = NamedSharding(self._mesh, P(AXIS))
    stack = jax.jit(
      lambda x: jax.numpy.broadcast_to(x, (self._local, *x.shape)),
      out_shardings=sharding,
    )
    return jax.tree.map(stack, tree)

  def fetch(self, tree: Tree) -> Tree:
    """Copies what `replicate` made, or a step returned, to the host.

    Packed trees (`flat_params`) are unpacked. These are real copies: on CPU the
    host would otherwise look at memory that the next step is given to
    overwrite.
    """

    def first(x: Any) -> np.ndarray:
      x = x.addressable_data(0)
      return np.array(x)[0, ...] if self.mode == "pmap" else np.array(x)

    jax.block_until_ready(tree)
    return flat_params.to_tree(jax.tree.map(first, tree))

  def shard(self, batch: Tree, stacked: bool = False) -> Tree:
    """Splits this process's share of a batch over its devices.

    Args:
      batch: host arrays `[b ...]`; `[steps b ...]` if stacked.
      stacked: whether several steps' batches lie behind each other.
    """
    if self.mode == "jit":
      return batch
    if self.mode == "shard_map":
      spec = P(None, AXIS) if stacked else P(AXIS)
      sharding = NamedSharding(self._mesh, spec)
      return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x), batch
      )

    def split(x: np.ndarray) -> np.ndarray:
      axis = 1 if stacked else 0
      shape = (*x.shape[:axis], self._local, -1, *x.shape[axis + 1 :])
      return np.moveaxis(x.reshape(shape), axis, 0)

    return jax.tree.map(split, batch)

  def compile(
    self,
    fn: Callable[..., Tree],
    batch_argument: int | None = None,
    donate: tuple[int, ...] = (),
    stacked: bool = False,
  ) -> Callable[..., Tree]:
    """Compiles a function of one device for all of them.

    Args:
      fn: reduces over `axis_name` by itself, so its results are equal on all
        devices.
      batch_argument: the argument that `shard` made; all others `replicate`
        made, or this function returned. None: there is none.
      donate: arguments whose memory the results may take.
      stacked: as in `shard`.
    """
    if self.mode == "jit":
      return jax.jit(fn, donate_argnums=donate)
    if self.mode == "pmap":
      return jax.pmap(fn, axis_name=AXIS, donate_argnums=donate)
    sharded = P(None, AXIS) if stacked else P(AXIS)

    def spread(*args: Tree) -> Tree:
      specs = tuple(
        sharded if i == batch_argument else P() for i in range(len(args))
      )
      return jax.shard_map(
        fn, mesh=self._mesh, in_specs=specs, out_specs=P(), check_vma=False
      )(*args)

    return jax.jit(spread, donate_argnums=donate)


def init_call(
  steps: Steps, image_shape: tuple[int, int, int]
) -> Callable[..., Tree]:
  """Compiles `(rng, inputs) -> state`, on one device.

  Not to be kept: what is compiled for it takes as much memory as a gradient.
  """
  return jax.jit(lambda rng, inputs: steps.init(rng, image_shape, inputs))


# Runs of one process share these calls, and what they compiled, where their
# steps are equal.
_shared = functools.lru_cache(maxsize=4)


@_shared
def evaluation_call(
  spread: Spread, steps: Steps, together: bool = False
) -> Callable[..., Tree]:
  """Compiles `(variables, sums, data, batch) -> sums`.

  With `together`, of several runs at once: see `training_call`.
  """
  if together:
    return spread.compile(jax.vmap(steps.evaluate, (0, 0, None, None)))
  return spread.compile(steps.evaluate, 3)


@_shared
def observation_call(spread: Spread) -> Callable[..., Tree]:
  """Compiles `(state, sums) -> what is told of a step`."""
  return spread.compile(
    lambda state, sums: {
      "sums": sums,
      "learning_rate": optimizers.learning_rate(state.opt_state),
    }
  )


@_shared
def training_call(
  spread: Spread, steps: Steps, stacked: bool, together: bool = False
) -> Callable[..., Tree]:
  """Compiles `(state, sums, data, batch, inputs) -> (state, sums)`.

  The state given is consumed. With `stacked` the batch is several steps' and
  they run in one `lax.scan`. On CPU a single step is two programs, which is a
  tenth faster: in one, XLA fuses the gradients' assembly into the optimizer and
  repeats it there.

  With `together` the call is for several runs of equal steps, on one device:
  all but `data` has a leading axis of runs, as `stack` makes it.
  """

  def of_all(fn: Callable[..., Tree], *axes: int | None) -> Callable[..., Tree]:
    return jax.vmap(fn, axes) if together else fn

  if stacked:

    def several(state: Tree, sums: Tree, data: Tree, batch: Tree, inputs: Tree):
      def step(carry: Tree, one: Tree) -> tuple[Tree, None]:
        state, sums = carry
        return steps.train(state, sums, data, one, inputs), None

      return jax.lax.scan(step, (state, sums), batch)[0]

    several = of_all(several, 0, 0, None, 0, 0)
    return spread.compile(several, 3, donate=(0,), stacked=True)
  if convolution.platform() != "cpu":
    train = of_all(steps.train, 0, 0, None, 0, 0)
    return spread.compile(train, 3, donate=(0,))
  return _TwoPrograms(
    spread.compile(of_all(steps.gradients, 0, 0, None, 0, 0), 3),
    spread.compile(of_all(steps.update, 0, 0, 0, 0), donate=(0,)),
  )


class _TwoPrograms:
  """A training step on CPU, as `training_call` describes it.

  Args:
    gradients: `(state, sums, data, batch, inputs) -> (gradients, batch_stats,
      sums)`.
    update: `(state, gradients, batch_stats, inputs) -> state`, which consumes
      the state.
  """

  def __init__(
    self, gradients: Callable[..., Tree], update: Callable[..., Tree]
  ):
    self._gradients = gradients
    self._update = update
    self._first = True
    self._waits = False

  def __call__(
    self, state: Tree, sums: Tree, data: Tree, batch: Tree, inputs: Tree
  ) -> tuple[Tree, Tree]:
    if self._waits:  # Else two steps' gradients would be in memory at once.
      malloc.let_go(state.step)
    gradients, batch_stats, sums = self._gradients(
      state, sums, data, batch, inputs
    )
    if not self._first:
      return self._update(state, gradients, batch_stats, inputs), sums
    # The programs find other places for their arrays once both are compiled.
    self._first = False
    malloc.give_back(gradients)
    state = self._update(state, gradients, batch_stats, inputs)
    del gradients
    malloc.give_back(state)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    self._waits = num_params > _MANY
    return state, sums


@jax.jit
def stack(trees: Sequence[Tree]) -> Tree:
  """Several runs' trees as one, on one device: arrays `[runs ...]`."""
  return jax.tree.map(lambda *x: jnp.stack(x), *trees)


@jax.jit
def pick(tree: Tree, run: int) -> Tree:
  """One run's tree, of those that `stack` put together."""
  return jax.tree.map(lambda x: x[run], tree)
