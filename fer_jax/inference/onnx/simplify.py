"""Rewrites of a graph of ONNX operations into fewer ones.

BatchNorm and biases are folded into the weights before them, bounds become
Relu or Clip, a sum divided by its length a mean, and so on. The results agree
to float32 accuracy; weights are scaled in float64 and rounded once.
"""

import collections
import math
from collections.abc import Callable

import numpy as np

from fer_jax.inference.onnx.graph import BATCH, Graph, Node, Shape

REDUCTIONS = ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum")


def simplify(graph: Graph) -> None:
  """Rewrites a graph until nothing changes.

  Args:
    graph: changed in place.
  """
  _remove_unused(graph)
  while _Sweep(graph).run():
    _remove_unused(graph)


class _Sweep:
  """One pass over all nodes, in the order of computation.

  A rewrite changes a node in place; the nodes whose outputs are then unused
  are removed after the pass.
  """

  def __init__(self, graph: Graph) -> None:
    self.graph = graph
    self.producers = {node.output: node for node in graph.nodes}
    self.uses = collections.Counter(
      name for node in graph.nodes for name in node.inputs
    )
    self.uses[graph.output] += 1

  def run(self) -> bool:
    """Returns whether anything changed."""
    changed = [
      any(rewrite(self, node) for rewrite in REWRITES)
      for node in self.graph.nodes
    ]
    return any(changed)

  def before(self, node: Node, *ops: str, alone: bool = True) -> Node | None:
    """The node that computes a node's first input, if it is one of `ops`.

    Args:
      node: the node.
      *ops: operators.
      alone: whether nothing else may use that output.
    """
    found = self.producers.get(node.inputs[0])
    if found is None or found.op not in ops:
      return None
    return None if alone and self.uses[found.output] > 1 else found

  def replace(self, node: Node, name: str) -> bool:
    """Lets everything that uses a node's output use another array."""
    graph = self.graph
    if not self.uses[node.output] or (
      node.output == graph.output and name == graph.input
    ):
      return False
    for other in graph.nodes:
      other.inputs = [name if i == node.output else i for i in other.inputs]
    if graph.output == node.output:
      graph.output = name
    self.uses[name] += self.uses.pop(node.output) - 1
    return True

  def shape(self, name: str) -> Shape:
    """The stored shape of a computed array."""
    found = self.producers.get(name)
    return found.shape if found else self.graph.input_shape


def _leaky_relu(sweep: _Sweep, node: Node) -> bool:
  """Where(x >= 0, x, slope * x)."""
  if node.op != "Where":
    return False
  test, other = (sweep.producers.get(node.inputs[i]) for i in (0, 2))
  if (
    test is None
    or other is None
    or test.op not in ("GreaterOrEqual", "Greater")
    or other.op != "Affine"
    or not test.inputs[0] == other.inputs[0] == node.inputs[1]
  ):
    return False
  bound = sweep.graph.constants.get(test.inputs[1])
  scale, shift = other.attributes["scale"], other.attributes["shift"]
  if bound is None or bound.any() or scale.size > 1 or shift.any():
    return False
  node.op, node.inputs = "LeakyRelu", [test.inputs[0]]
  node.attributes = {"alpha": scale.item()}
  return True


def _mean(sweep: _Sweep, node: Node) -> bool:
  """A sum divided by the number of summands."""
  total = sweep.before(node, "ReduceSum") if node.op == "Affine" else None
  if total is None:
    return False
  shape, axes = sweep.shape(total.inputs[0]), total.attributes["axes"]
  count = math.prod(shape[axis] for axis in axes)
  scale, shift = node.attributes["scale"], node.attributes["shift"]
  if scale.size > 1 or shift.any() or BATCH in (shape[axis] for axis in axes):
    return False
  if not math.isclose(scale.item() * count, 1, rel_tol=1e-6):
    return False
  node.op, node.inputs = "ReduceMean", total.inputs
  node.attributes = total.attributes
  return True


def _merge_affines(sweep: _Sweep, node: Node) -> bool:
  """(x * a + b) * c + d = x * ac + (bc + d)."""
  inner = sweep.before(node, "Affine") if node.op == "Affine" else None
  if inner is None:
    return False
  scale, shift = node.attributes["scale"], node.attributes["shift"]
  node.inputs = inner.inputs
  node.attributes = {
    "scale": inner.attributes["scale"] * scale,
    "shift": inner.attributes["shift"] * scale + shift,
  }
  return True


def _fold_affine(sweep: _Sweep, node: Node) -> bool:
  """A convolution or dense layer takes scale and shift into its weights."""
  if node.op != "Affine":
    return False
  constants = sweep.graph.constants
  layer = sweep.before(node, "Conv", "Gemm", "MatMul")
  if layer is None or layer.inputs[1] not in constants:
    return False
  weights = constants[layer.inputs[1]]
  outputs_axis, weights_axis = (1, 0) if layer.op == "Conv" else (-1, 1)
  outputs = weights.shape[weights_axis]
  scale, shift = (
    _vector(node.attributes[name], outputs_axis, outputs)
    for name in ("scale", "shift")
  )
  if scale is None or shift is None:
    return False
  whole = layer.op != "MatMul" or len(layer.shape) == 2
  if (scale != 1).any():
    spread = [1] * weights.ndim
    spread[weights_axis] = outputs
    scaled = (weights * scale.reshape(spread)).astype(np.float32)
    inputs = [layer.inputs[0], sweep.graph.constant(scaled)]
  elif whole:
    inputs = layer.inputs[:2]
  else:
    return False
  if not whole:  # A product of more dimensions takes no bias.
    layer.inputs = inputs
    node.attributes["scale"] = np.ones(())
    return True
  bias = constants[layer.inputs[2]] if layer.inputs[2:] else np.zeros(())
  node.op = "Gemm" if layer.op == "MatMul" else layer.op
  node.inputs = [*inputs, sweep.graph.constant(bias * scale + shift)]
  node.attributes, node.scope = layer.attributes, layer.scope
  return True


def _vector(array: np.ndarray, axis: int, size: int) -> np.ndarray | None:
  """The values along one axis, if the array is constant along all others."""
  if array.ndim and array.size != array.shape[axis]:
    return None
  return np.broadcast_to(array.reshape(-1), size)


def _merge_ranges(sweep: _Sweep, node: Node) -> bool:
  """The bounds of bounded values."""
  inner = sweep.before(node, "Range") if node.op == "Range" else None
  if inner is None:
    return False
  low, high = node.attributes["low"], node.attributes["high"]
  node.inputs = inner.inputs
  node.attributes = {
    name: min(max(bound, low), high) for name, bound in inner.attributes.items()
  }
  return True


def _merge_reshapes(sweep: _Sweep, node: Node) -> bool:
  """Only the last of several reshapes counts."""
  if node.op != "Reshape":
    return False
  inner = sweep.before(node, "Reshape", alone=False)
  if inner:
    node.inputs[0] = inner.inputs[0]
  return inner is not None


def _keep_dims(sweep: _Sweep, node: Node) -> bool:
  """A reduction keeps the axes that a reshape puts back."""
  total = sweep.before(node, *REDUCTIONS) if node.op == "Reshape" else None
  if total is None or total.attributes["keepdims"]:
    return False
  kept = list(sweep.shape(total.inputs[0]))
  for axis in total.attributes["axes"]:
    kept[axis] = 1
  if tuple(kept) != node.shape:
    return False
  node.op, node.inputs = total.op, total.inputs
  node.attributes = {**total.attributes, "keepdims": 1}
  return True


def _expand_in_place(sweep: _Sweep, node: Node) -> bool:
  """Repeats along an axis of size 1 without a detour over another shape."""
  expand = sweep.before(node, "Expand") if node.op == "Reshape" else None
  inner = sweep.before(expand, "Reshape") if expand else None
  if expand is None or inner is None:
    return False
  before, after = sweep.shape(inner.inputs[0]), node.shape
  there, here = _grown(inner.shape, expand.shape), _grown(before, after)
  if there is None or here is None or there != here:
    return False
  target = [1 if size == BATCH else size for size in after]
  node.op = "Expand"
  node.inputs = [
    inner.inputs[0],
    sweep.graph.constant(np.array(target, np.int64)),
  ]
  return True


def _grown(before: Shape, after: Shape) -> tuple[list[int], int] | None:
  """The sizes before the one axis that differs, and what it grew to."""
  if len(before) != len(after):
    return None
  pairs = zip(before, after, strict=True)
  axes = [i for i, (a, b) in enumerate(pairs) if a != b]
  if len(axes) != 1 or before[axes[0]] != 1:
    return None
  return [d for d in after[: axes[0]] if d != 1], after[axes[0]]


def _remove_identities(sweep: _Sweep, node: Node) -> bool:
  """Operations that change nothing."""
  values = node.attributes
  if node.op == "Affine":
    same = (values["scale"] == 1).all() and not values["shift"].any()
  elif node.op == "Range":
    same = (values["low"], values["high"]) == (-math.inf, math.inf)
  else:
    same = node.op == "Reshape" and sweep.shape(node.inputs[0]) == node.shape
  return bool(same) and sweep.replace(node, node.inputs[0])


REWRITES: tuple[Callable[[_Sweep, Node], bool], ...] = (
  _remove_identities,
  _leaky_relu,
  _mean,
  _merge_affines,
  _fold_affine,
  _merge_ranges,
  _merge_reshapes,
  _keep_dims,
  _expand_in_place,
)


def _remove_unused(graph: Graph) -> None:
  used, kept = {graph.output}, []
  for node in reversed(graph.nodes):
    if node.output in used:
      used.update(node.inputs)
      kept.append(node)
  graph.nodes = kept[::-1]
  graph.constants = {
    name: array for name, array in graph.constants.items() if name in used
  }
