"""A graph of ONNX operations under construction.

An array is stored in the graph with its axes in some order, its layout, so
that a transposition costs nothing until an operation needs another order:
what a convolution returns stays channels-first up to the classifier.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

# The size of a dimension that differs from call to call; also what ONNX's
# Reshape takes for it.
BATCH = -1

# How images are stored for Conv and MaxPool, as axes of [b h w c].
CHANNELS_FIRST = (0, 3, 1, 2)

Shape = tuple[int, ...]
Layout = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Tensor:
  """An array that the graph computes.

  Attributes:
    name: of the node output that holds it.
    shape: as the JAX program sees it; `BATCH` where the size is not fixed.
    layout: axis i of the stored array is axis `layout[i]` of `shape`.
  """

  name: str
  shape: Shape
  layout: Layout

  @property
  def stored_shape(self) -> Shape:
    """The shape of the array in the graph."""
    return tuple(self.shape[axis] for axis in self.layout)


@dataclasses.dataclass
class Node:
  """One operation with one output.

  Attributes:
    op: an ONNX operator, or one of the two that `write` lowers:
      "Affine" (x * scale + shift) and "Range" (clipped to low..high).
    inputs: names of node outputs, constants or the graph's input.
    output: name.
    shape: of the output as stored.
    attributes: of the operator.
    scope: the module it comes from, "ResNet/layer1_0/conv1".
  """

  op: str
  inputs: list[str]
  output: str
  shape: Shape
  attributes: dict[str, Any]
  scope: str


class Graph:
  """Nodes in the order of computation, and their constants.

  Attributes:
    input: name of the input.
    input_shape: its shape, stored as it is.
    output: name of what the graph returns, set when it is complete.
    nodes: the operations.
    constants: arrays by name.
    scope: given to nodes that are added.
  """

  def __init__(self, input_name: str, input_shape: Shape) -> None:
    self.input = input_name
    self.input_shape = input_shape
    self.output = ""
    self.nodes: list[Node] = []
    self.constants: dict[str, np.ndarray] = {}
    self.scope = ""
    self._numbers = itertools.count()
    self._stored: dict[tuple[str, Layout], Tensor] = {}

  def constant(self, array: np.ndarray) -> str:
    """Adds a constant and returns its name."""
    name = f"constant{next(self._numbers)}"
    self.constants[name] = np.asarray(array)
    return name

  def add(
    self, op: str, inputs: Iterable[str], shape: Shape, **attributes: Any
  ) -> str:
    """Adds a node and returns the name of its output.

    Args:
      op: the operator.
      inputs: names.
      shape: of the output as stored.
      **attributes: of the operator.
    """
    output = f"value{next(self._numbers)}"
    self.nodes.append(
      Node(op, list(inputs), output, shape, attributes, self.scope)
    )
    return output

  def store(self, tensor: Tensor, layout: Layout) -> Tensor:
    """Returns the tensor stored with another order of axes."""
    if layout == tensor.layout:
      return tensor
    key = tensor.name, layout
    if key not in self._stored:
      moves = tuple(tensor.layout.index(axis) for axis in layout)
      shape = tuple(tensor.shape[axis] for axis in layout)
      kept = [axis for axis in moves if tensor.stored_shape[axis] != 1]
      if kept == sorted(kept):  # Only axes of size 1 move.
        name = self.reshape(tensor.name, shape)
      else:
        name = self.add("Transpose", [tensor.name], shape, perm=moves)
      self._stored[key] = Tensor(name, tensor.shape, layout)
    return self._stored[key]

  def reshape(self, name: str, shape: Shape) -> str:
    """Adds a Reshape; at most one dimension is `BATCH`."""
    target = self.constant(np.array(shape, np.int64))
    return self.add("Reshape", [name, target], shape)


def reshape(graph: Graph, x: Tensor, shape: Shape) -> Tensor:
  """Reshapes a tensor, keeping its layout where the layout allows it.

  Args:
    graph: what computes the tensor.
    x: the tensor.
    shape: the new one, as the JAX program sees it.
  """
  layout = _reshaped_layout(x, shape)
  if layout is None:
    x = graph.store(x, tuple(range(len(x.shape))))
    layout = tuple(range(len(shape)))
  stored = tuple(shape[axis] for axis in layout)
  name = x.name
  if stored != x.stored_shape:
    name = graph.reshape(name, stored)
  return Tensor(name, shape, layout)


def _reshaped_layout(x: Tensor, shape: Shape) -> Layout | None:
  """The layout after a reshape of the stored array; None if there is none.

  Axes of size 1 aside, a reshape merges and splits runs of axes. Where each
  run lies side by side in the stored array, that array can be reshaped as it
  is, and the runs keep their order.
  """
  runs = _matching_runs(x.shape, shape)
  if runs is None:
    return None
  stored = [axis for axis in x.layout if x.shape[axis] != 1]
  runs.sort(key=lambda run: stored.index(run[0][0]))
  if stored != [axis for before, _ in runs for axis in before]:
    return None
  return with_unit_axes([axis for _, after in runs for axis in after], shape)


def _matching_runs(
  before: Shape, after: Shape
) -> list[tuple[list[int], list[int]]] | None:
  """Axes of two shapes in runs of equal size, axes of size 1 left out."""
  runs: list[tuple[list[int], list[int]]] = []
  left = [axis for axis, size in enumerate(before) if size != 1]
  right = [axis for axis, size in enumerate(after) if size != 1]
  while left and right:
    run = [left.pop(0)], [right.pop(0)]
    sizes = _size(before, run[0]), _size(after, run[1])
    while sizes[0] != sizes[1]:
      side, rest = (0, left) if sizes[0] < sizes[1] else (1, right)
      if BATCH in sizes or not rest:
        return None
      run[side].append(rest.pop(0))
      sizes = _size(before, run[0]), _size(after, run[1])
    runs.append(run)
  return None if left or right else runs


def _size(shape: Shape, axes: Sequence[int]) -> int:
  sizes = [shape[axis] for axis in axes]
  return BATCH if BATCH in sizes else math.prod(sizes)


def with_unit_axes(stored: Sequence[int], shape: Shape) -> Layout:
  """Completes a layout by the axes of size 1, which may lie anywhere.

  Args:
    stored: the other axes, in stored order.
    shape: of the tensor.
  """
  if len(shape) == 4:  # Images: as Conv reads them, where that is free.
    if [axis for axis in CHANNELS_FIRST if shape[axis] != 1] == list(stored):
      return CHANNELS_FIRST
  layout = list(stored)
  for axis, size in enumerate(shape):
    if size == 1:
      later = (i for i, other in enumerate(layout) if other > axis)
      layout.insert(next(later, len(layout)), axis)
  return tuple(layout)
