"""Which parameters are trained, and from which epoch on.

What is frozen is cut out of the tree that is differentiated and given to the
optimizer: it has no gradient, no moments and no backward pass below the lowest
trained layer. Its norms run as in evaluation: fixed scale, bias and statistics.
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
from fer_jax.training.train_state import Tree


@dataclasses.dataclass(frozen=True)
class Freezing:
  """What is frozen in each epoch.

  Attributes:
    units: names of what is frozen and thawed together, in the order given; the
      last is thawed first.
    paths: of each unit's parameters.
    epochs: after how many epochs one unit more is thawed.
    always: paths of the parameters that are trained from the start.
  """

  units: tuple[str, ...] = ()
  paths: tuple[frozenset[str], ...] = ()
  epochs: tuple[int, ...] = ()
  always: frozenset[str] = frozenset()

  def frozen(self, epoch: int) -> frozenset[str]:
    """Paths of what is frozen after so many epochs."""
    return frozenset().union(*self.paths[: self._num_frozen(epoch)])

  def trained_units(self, epoch: int) -> dict[str, str]:
    """The unit of each trained parameter; {} where none is ever thawed.

    A unit that is thawed needs an optimizer of its own: Adam's correction of
    its moments counts from their first update.
    """
    if not self.epochs:
      return {}
    units = dict.fromkeys(self.always, "always")
    for i in range(self._num_frozen(epoch), len(self.units)):
      units |= dict.fromkeys(self.paths[i], self.units[i])
    return units

  def describe(self, epoch: int) -> str:
    """One line: what is frozen, and what is thawed when."""
    kept = self._num_frozen(epoch)
    line = f"frozen: {', '.join(self.units[:kept]) or 'nothing'}"
    done = len(self.units) - kept
    thaws = [
      f"{unit} after epoch {at}"
      for unit, at in zip(
        reversed(self.units[:kept]), self.epochs[done:], strict=False
      )
    ]
    return line + (f"; thawed: {', '.join(thaws)}" if thaws else "")

  def _num_frozen(self, epoch: int) -> int:
    return len(self.units) - sum(epoch >= at for at in self.epochs)


def create(
  config: ConfigDict, groups: layers.Groups, num_epochs: int
) -> Freezing:
  """Makes what a configuration says.

  Args:
    config: the section `freeze`.
    groups: of the model; not read where nothing is frozen.
    num_epochs: of the run.

  Raises:
    UserError: a pattern matches nothing, nothing is left to train, or the
      epochs of thawing are no growing numbers, or more than there are units.
  """
  patterns = split_list(config.patterns)
  epochs = tuple(config.unfreeze_epochs)
  field = "freeze.unfreeze_epochs"
  ok = all(isinstance(e, int) and 1 <= e < num_epochs for e in epochs)
  must = f"be whole epochs from 1 to {num_epochs - 1}, growing"
  require(ok and list(epochs) == sorted(set(epochs)), field, epochs, must)
  units: dict[str, frozenset[str]] = {}
  seen: frozenset[str] = frozenset()
  for pattern in patterns:
    names = [pattern]
    if pattern == layers.BACKBONE:
      names = list(groups)[:-1]
    for name in names:
      found = layers.match(name, groups, "freeze.patterns") - seen
      if found:
        units[name] = found
        seen |= found
  must = (
    f"have at most {len(units)} epochs, as many as --config.freeze.patterns"
  )
  must += " has groups to thaw"
  require(len(epochs) <= len(units), field, epochs, must)
  every = frozenset(path for paths in groups.values() for path in paths)
  if patterns and not every - seen:
    raise UserError(
      f"--config.freeze.patterns={config.patterns} freezes the whole model:"
      " leave at least its last layer to train"
    )
  return Freezing(tuple(units), tuple(units.values()), epochs, every - seen)


def split_list(text: str) -> list[str]:
  """The parts between commas.

  >>> split_list("conv1, layer1")
  ['conv1', 'layer1']
  """
  return [part.strip() for part in text.split(",") if part.strip()]


def split(params: Tree, frozen: frozenset[str]) -> tuple[Tree, Tree]:
  """Cuts a tree of parameters into the trained and the frozen."""
  if not frozen:
    return params, {}
  if isinstance(params, Flat):
    return params.split(frozen)
  flat = flatten_dict(params, sep="/")
  trained = {path: leaf for path, leaf in flat.items() if path not in frozen}
  fixed = {path: leaf for path, leaf in flat.items() if path in frozen}
  return unflatten_dict(trained, sep="/"), unflatten_dict(fixed, sep="/")


def merge(trained: Tree, fixed: Tree) -> Tree:
  """Undoes `split`."""
  if not fixed:
    return trained
  if isinstance(fixed, Flat):
    return fixed.merge(trained)
  flat = flatten_dict(trained, sep="/") | flatten_dict(fixed, sep="/")
  return unflatten_dict(flat, sep="/")


def fixed_norms(
  frozen: frozenset[str],
) -> contextlib.AbstractContextManager[Any]:
  """Runs frozen norms as in evaluation while a model is traced inside.

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
  """An optimizer's state after thawing: what was there goes on.

  Args:
    old: the state before, on the host.
    new: a fresh one of the parameters that are trained from now on.

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
