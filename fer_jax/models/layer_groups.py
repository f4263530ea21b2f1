"""Groups of layers, and the parameters that a pattern selects.

A group is a top-level entry of the parameter tree, such as `conv1` or `fc`, or
all blocks of a stage (`layer1` is `layer1_0`, `layer1_1`, ...). A norm at the
top level belongs to the group of the layer before it: `conv1` includes `bn1`.
"""

import fnmatch
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from fer_jax.errors import UserError
from fer_jax.ops import dispatch

BACKBONE = "backbone"  # all groups but the last, which computes the logits

# Paths of the parameters ("layer1_0/conv1/kernel") of each group, in the order
# from the image to the logits.
Groups = Mapping[str, tuple[str, ...]]

# layer1_0, layer1_1, ... are blocks of layer1. Conv_0 and Conv_1, the names of
# unnamed layers, are not blocks of one stage.
BLOCK = re.compile(r"(.*\d)_\d+")


def variable_shapes(
  model: nn.Module, input_shape: tuple[int, int, int]
) -> dict[str, tuple[int, ...]]:
  """Returns the shapes of a model's variables, in the order of creation.

  Args:
    model: called as `model(x, train=False)` on Float[1 h w c].
    input_shape: (height, width, channels).

  Returns:
    Shapes by path, such as `params/conv1/kernel` or `batch_stats/bn1/mean`.
  """
  shapes: dict[str, tuple[int, ...]] = {}

  def init(x: jax.Array) -> Any:
    variables = model.init(jax.random.key(0), x, train=False)
    # Collected here because JAX sorts the keys of returned dictionaries.
    for path, leaf in flatten_dict(variables, sep="/").items():
      shapes[path] = leaf.shape
    return ()

  x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
  with dispatch.use_xla():  # the quickest to trace
    jax.eval_shape(init, x)
  return shapes


def layer_groups(
  model: nn.Module, input_shape: tuple[int, int, int]
) -> dict[str, tuple[str, ...]]:
  """Returns the groups of a model and the paths of their parameters.

  Args:
    model: see `variable_shapes`.
    input_shape: (height, width, channels).

  >>> from fer_jax.models import create
  >>> list(layer_groups(create("resnet18", num_classes=7), (48, 48, 1)))
  ['conv1', 'layer1', 'layer2', 'layer3', 'layer4', 'fc']
  """
  tops: dict[str, list[str]] = {}
  for name in variable_shapes(model, input_shape):
    collection, _, path = name.partition("/")
    if collection == "params":
      tops.setdefault(path.split("/")[0], []).append(path)
  groups: dict[str, list[str]] = {}
  for top, paths in tops.items():
    is_norm = {p.rpartition("/")[2] for p in paths} == {"scale", "bias"}
    if is_norm and len(paths) == 2 and groups:
      groups[next(reversed(groups))] += paths
      continue
    block = BLOCK.fullmatch(top)
    groups.setdefault(block[1] if block else top, []).extend(paths)
  return {name: tuple(paths) for name, paths in groups.items()}


def match(pattern: str, groups: Groups, field: str) -> frozenset[str]:
  """Returns the paths of the parameters that a pattern selects.

  Args:
    pattern: a group, "backbone", the beginning of a path up to a `/` or `_`
      ("layer1_0/conv1"), or a glob of a path or its beginning ("*/bn*").
    groups: the model's groups.
    field: configuration field of the pattern, for the error message.

  Raises:
    UserError: no parameter matches; the message lists the groups.

  >>> groups = {"conv1": ("conv1/kernel", "bn1/scale"), "fc": ("fc/bias",)}
  >>> sorted(match("conv1", groups, "freeze.patterns"))
  ['bn1/scale', 'conv1/kernel']
  >>> match("f*", groups, "freeze.patterns")
  frozenset({'fc/bias'})
  """
  if pattern == BACKBONE:
    *lower, _ = groups.values()
    found = frozenset(path for paths in lower for path in paths)
  elif pattern in groups:
    found = frozenset(groups[pattern])
  else:
    paths = [path for group in groups.values() for path in group]
    found = frozenset(path for path in paths if _matches(pattern, path))
  if not found:
    raise UserError(
      f"{field}: no parameter matches {pattern!r}: the groups are"
      f" {', '.join(groups)}; {BACKBONE} is all but {list(groups)[-1]}"
    )
  return found


def _matches(pattern: str, path: str) -> bool:
  """Returns whether a pattern that is not a group selects a parameter."""
  if any(character in pattern for character in "*?["):
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(
      path, f"{pattern}/*"
    )
  return path == pattern or path.startswith((f"{pattern}/", f"{pattern}_"))
