"""Freezing: which parameters are trained, and from which epoch on.

Frozen parameters are removed from the tree that is differentiated and given to
the optimizer: they have no gradients, no moments, and no backward pass below
the lowest trained layer. Frozen BatchNorms run as in evaluation: with fixed
scale, bias and statistics.
"""

import contextlib
import dataclasses
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from fer_jax.errors import UserError, require
from fer_jax.models import layer_groups as layers
from fer_jax.training.flat_params import Flat

Tree = Any  # a tree of arrays, or `Flat`


@dataclasses.dataclass(frozen=True)
class Freezing:
  """What is frozen in each epoch.

  Attributes:
    groups: names of the groups of parameters that are frozen and unfrozen
      together, in the order given; the last is unfrozen first.
    paths: the parameters of each group.
    epochs: after how many epochs one more group is unfrozen.
    always: paths of the parameters that are trained from the start.
  """

  groups: tuple[str, ...] = ()
  paths: tuple[frozenset[str], ...] = ()
  epochs: tuple[int, ...] = ()
  always: frozenset[str] = frozenset()

  def frozen(self, epoch: int) -> frozenset[str]:
    """Returns the paths that are frozen after `epoch` epochs."""
    return frozenset().union(*self.paths[: self._num_frozen(epoch)])

  def moment_groups(self, epoch: int) -> dict[str, str]:
    """Returns the group of each trained parameter; {} if none is unfrozen.

    A group that is unfrozen needs an optimizer state of its own: Adam's bias
    correction counts from the first update of its moments.
    """
    if not self.epochs:
      return {}
    groups = dict.fromkeys(self.always, "always")
    for i in range(self._num_frozen(epoch), len(self.groups)):
      groups |= dict.fromkeys(self.paths[i], self.groups[i])
    return groups

  def describe(self, epoch: int) -> str:
    """Returns one line: what is frozen, and what is unfrozen when."""
    kept = self._num_frozen(epoch)
    line = f"frozen: {', '.join(self.groups[:kept]) or 'nothing'}"
    done = len(self.groups) - kept
    planned = [
      f"{group} after epoch {at}"
      for group, at in zip(
        reversed(self.groups[:kept]), self.epochs[done:], strict=False
      )
    ]
    return line + (f"; to unfreeze: {', '.join(planned)}" if planned else "")

  def _num_frozen(self, epoch: int) -> int:
    return len(self.groups) - sum(epoch >= at for at in self.epochs)


def create(
  config: ConfigDict, layer_groups: layers.Groups, num_epochs: int
) -> Freezing:
  """Returns the freezing that a configuration describes.

  Args:
    config: the section `freeze`.
    layer_groups: the model's; not read if nothing is frozen.
    num_epochs: epochs of the run.

  Raises:
    UserError: a pattern matches nothing, nothing is left to train, or the
      epochs do not increase or are more than there are groups.
  """
  epochs = tuple(config.unfreeze_epochs)
  field = "freeze.unfreeze_epochs"
  ok = all(isinstance(e, int) and 1 <= e < num_epochs for e in epochs)
  must = f"be increasing whole numbers from 1 to {num_epochs - 1}"
  require(ok and list(epochs) == sorted(set(epochs)), field, epochs, must)
  groups: dict[str, frozenset[str]] = {}
  seen: frozenset[str] = frozenset()
  for pattern in split_list(config.patterns):
    names = [pattern]
    if pattern == layers.BACKBONE:
      layers.match(pattern, layer_groups, "freeze.patterns")  # Not empty.
      names = list(layer_groups)[:-1]
    for name in names:
      found = layers.match(name, layer_groups, "freeze.patterns") - seen
      if found:
        groups[name] = found
        seen |= found
  must = (
    f"have at most {len(groups)} epochs, one for each group of freeze.patterns"
  )
  require(len(epochs) <= len(groups), field, epochs, must)
  every = frozenset(path for paths in layer_groups.values() for path in paths)
  if groups and not every - seen:
    raise UserError(
      f"freeze.patterns={config.patterns} freezes the whole model: leave at"
      " least its last layer to train"
    )
  return Freezing(tuple(groups), tuple(groups.values()), epochs, every - seen)


def split_list(text: str) -> list[str]:
  """Splits a comma-separated list.

  >>> split_list("conv1, layer1")
  ['conv1', 'layer1']
  """
  return [part.strip() for part in text.split(",") if part.strip()]


def split(params: Tree, frozen: frozenset[str]) -> tuple[Tree, Tree]:
  """Splits a tree of parameters into the trained and the frozen ones."""
  if not frozen:
    return params, {}
  if isinstance(params, Flat):
    return params.split(frozen)
  flat = flatten_dict(params, sep="/")
  trained = {path: leaf for path, leaf in flat.items() if path not in frozen}
  fixed = {path: leaf for path, leaf in flat.items() if path in frozen}
  return unflatten_dict(trained, sep="/"), unflatten_dict(fixed, sep="/")


def merge(trained: Tree, frozen: Tree) -> Tree:
  """Reverses `split`."""
  if not frozen:
    return trained
  if isinstance(frozen, Flat):
    return frozen.merge(trained)
  flat = flatten_dict(trained, sep="/") | flatten_dict(frozen, sep="/")
  return unflatten_dict(flat, sep="/")


def fixed_norms(
  frozen: frozenset[str],
) -> contextlib.AbstractContextManager[Any]:
  """Makes frozen BatchNorms run as in evaluation while a model is traced.

  Args:
    frozen: paths of the frozen parameters.
  """
  if not frozen:
    return contextlib.nullcontext()

  def intercept(next_fn: Any, args: Any, kwargs: Any, context: Any) -> Any:
    module = context.module
    if not isinstance(module, nn.BatchNorm) or not module.path:
      return next_fn(*args, **kwargs)
    path = "/".join(module.path)
    if not {f"{path}/scale", f"{path}/bias"} <= frozen:
      return next_fn(*args, **kwargs)
    fixed = module.clone(
      parent=None, name=None, use_running_average=True, axis_name=None
    )
    return fixed.apply(module.variables, *args, **kwargs)

  return nn.intercept_methods(intercept)


def carry_over(old: Tree, new: Tree) -> Tree:
  """Returns an optimizer state after unfreezing, with all that was there.

  Args:
    old: the state before, on the host.
    new: an initial state for the parameters that are trained from now on.

  Returns:
    `new`, with every array that `old` has in the same place.
  """
  kept = {
    jax.tree_util.keystr(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(old)
  }
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: kept.get(jax.tree_util.keystr(path), leaf), new
  )
