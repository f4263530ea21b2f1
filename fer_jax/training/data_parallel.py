"""Data parallelism: runs a function of one device on all of them.

* `jit`: one device.
* `pmap`: all devices; every array has a leading axis of local devices.
* `shard_map`: all devices; `jit` of `shard_map` over the same axis, which JAX
  recommends for new code. Arrays are global, the state is on every device.

Several processes (`jax.distributed.initialize`) use `shard_map`: each provides
its part of every batch. Programs of `pmap` can only be compiled before they are
called, as training does, within one process.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from fer_jax.errors import UserError, choose
from fer_jax.training import flat_params
from fer_jax.training.train_state import Tree

MODES = ("auto", "jit", "pmap", "shard_map")
AXIS = "batch"


class DataParallel:
  """Places arrays on devices and compiles functions for them.

  Instances of one mode are equal.

  Attributes:
    mode: "jit", "pmap" or "shard_map".
    num_devices: devices that share a batch, over all processes.
    axis_name: the axis that functions reduce over; None for one device.
  """

  def __init__(self, mode: str):
    """Chooses devices.

    Args:
      mode: one of `MODES`; "auto" is "jit" on one device, "pmap" on several
        of one process, and "shard_map" with several processes.

    Raises:
      UserError: the mode is unknown, or not one for several processes.
    """
    choose("parallel", mode, MODES)
    several = jax.process_count() > 1
    if mode == "auto":
      mode = "jit" if jax.device_count() == 1 else "pmap"
      mode = "shard_map" if several else mode
    if mode != "shard_map" and several:
      raise UserError(
        f"parallel={mode} is for one process, but there are"
        f" {jax.process_count()}: use parallel=auto or parallel=shard_map"
      )
    self.mode = mode
    self.num_devices = 1 if mode == "jit" else jax.device_count()
    self.axis_name = None if mode == "jit" else AXIS
    local = np.array(jax.local_devices())
    mesh_devices = local if mode == "pmap" else np.array(jax.devices())
    self._num_local = 1 if mode == "jit" else len(local)
    self._mesh = Mesh(mesh_devices, (AXIS,))

  def __eq__(self, other: object) -> bool:
    return isinstance(other, DataParallel) and self.mode == other.mode

  def __hash__(self) -> int:
    return hash(self.mode)

  def check_batch(self, field: str, batch_size: int) -> None:
    """Raises UserError if a batch cannot be divided among the devices."""
    devices = self.num_devices
    if batch_size < 1 or batch_size % devices:
      multiple = max(batch_size // devices, 1) * devices
      raise UserError(
        f"{field}={batch_size} must be a multiple of the {devices} devices:"
        f" use {field}={multiple}"
      )

  def replicate(self, tree: Tree) -> Tree:
    """Puts a tree of host or single-device arrays on every device."""
    if self.mode == "jit":
      return jax.device_put(tree, jax.local_devices()[0])
    if self.mode == "shard_map":
      sharding = NamedSharding(self._mesh, P())
      if jax.process_count() == 1:
        return jax.device_put(tree, sharding)
      return jax.tree.map(lambda x: _put_everywhere(x, sharding), tree)
    return jax.tree.map(self._stack, tree)

  def _stack(self, x: Any) -> jax.Array:
    """Puts an array on every local device, with a leading axis of them."""
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    host = np.asarray(jax.random.key_data(x) if is_key else x)
    stacked = jax.device_put(
      np.broadcast_to(host, (self._num_local, *host.shape)),
      NamedSharding(self._mesh, P(AXIS)),
    )
    if not is_key:
      return stacked
    return jax.random.wrap_key_data(stacked, impl=jax.random.key_impl(x))

  def replicated_shapes(self, tree: Tree) -> Tree:
    """Returns what `replicate` makes of arrays of these shapes, as shapes."""

    def replicated(x: Any) -> jax.ShapeDtypeStruct:
      if self.mode == "pmap":
        return jax.ShapeDtypeStruct((self._num_local, *x.shape), x.dtype)
      sharding = None
      if self.mode == "shard_map":
        sharding = NamedSharding(self._mesh, P())
      return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(replicated, tree)

  def fetch(self, tree: Tree) -> Tree:
    """Copies arrays of `replicate`, or a step's results, to the host.

    Packed trees (`flat_params`) are unpacked. These are real copies: on CPU a
    view would show memory that the next step, to which the state is donated,
    overwrites.
    """

    def first(x: Any) -> np.ndarray:
      x = x.addressable_data(0)
      return np.array(x)[0, ...] if self.mode == "pmap" else np.array(x)

    jax.block_until_ready(tree)
    return flat_params.to_tree(jax.tree.map(first, tree))

  def shard(self, batch: Tree, stacked: bool = False) -> Tree:
    """Splits this process's part of a batch among its devices.

    Args:
      batch: host arrays `[b ...]`, or `[steps b ...]` if stacked.
      stacked: whether the batch holds the batches of several steps.
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
      shape = (*x.shape[:axis], self._num_local, -1, *x.shape[axis + 1 :])
      return np.moveaxis(x.reshape(shape), axis, 0)

    return jax.tree.map(split, batch)

  def jit(
    self,
    fn: Callable[..., Tree],
    batch_argnum: int | None = None,
    donate_argnums: tuple[int, ...] = (),
    stacked: bool = False,
  ) -> Any:
    """Returns a function of one device, jitted for all of them.

    Args:
      fn: reduces over `axis_name` by itself, so that its results are equal on
        all devices.
      batch_argnum: the argument that `shard` made; all others were made by
        `replicate` or returned by such a function. None: there is none.
      donate_argnums: arguments whose memory the results may reuse.
      stacked: as in `shard`.

    Returns:
      The function, with `lower` as `jax.jit` has it.
    """
    if self.mode == "jit":
      return jax.jit(fn, donate_argnums=donate_argnums)
    if self.mode == "pmap":
      return jax.pmap(fn, axis_name=AXIS, donate_argnums=donate_argnums)
    sharded = P(None, AXIS) if stacked else P(AXIS)

    def mapped(*args: Tree) -> Tree:
      specs = tuple(
        sharded if i == batch_argnum else P() for i in range(len(args))
      )
      return jax.shard_map(
        fn, mesh=self._mesh, in_specs=specs, out_specs=P(), check_vma=False
      )(*args)

    return jax.jit(mapped, donate_argnums=donate_argnums)


def _put_everywhere(x: Any, sharding: NamedSharding) -> jax.Array:
  """Puts an array that all processes have on the devices of all of them."""
  if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
    data = _put_everywhere(jax.random.key_data(x), sharding)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
  host = np.asarray(x)
  return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)
