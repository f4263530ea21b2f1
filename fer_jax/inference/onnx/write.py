"""A graph as an ONNX model."""

import math
import types
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_jax import __version__
from fer_jax.errors import UserError
from fer_jax.inference.onnx.graph import BATCH, Graph, Node, Shape

if TYPE_CHECKING:
  import onnx

# Opset 17 is the newest that onnxruntime 1.12 (July 2022) reads; the IR version
# is that of the file format.
OPSET = 17
IR_VERSION = 8


def onnx_package() -> types.ModuleType:
  """Imports the package `onnx`, an optional dependency.

  Raises:
    UserError: it is not installed.
  """
  try:
    import onnx
    import onnx.checker
    import onnx.helper
    import onnx.numpy_helper
  except ImportError as e:
    raise UserError(
      "ONNX export needs the package onnx: pip install 'fer_jax[onnx]'"
    ) from e
  return onnx


def to_model(
  graph: Graph, name: str, output: str, output_shape: Shape
) -> "onnx.ModelProto":
  """Writes a simplified graph as ONNX.

  Args:
    graph: of a uint8 input and a float32 output; its nodes are lowered.
    name: of the graph.
    output: name of the output.
    output_shape: its shape.
  """
  onnx = onnx_package()
  helper, element = onnx.helper, onnx.TensorProto
  graph.nodes = [
    lowered for node in graph.nodes for lowered in _lower(graph, node)
  ]
  names = _Names(graph, output)
  nodes = [
    helper.make_node(
      node.op,
      [names.of[i] for i in node.inputs],
      [names.of[node.output]],
      name=names.of[node.output],
      **{key: _attribute(onnx, v) for key, v in node.attributes.items()},
    )
    for node in graph.nodes
  ]
  constants = [
    onnx.numpy_helper.from_array(_stored(graph.constants[key]), names.of[key])
    for key in names.constants
  ]
  inputs, outputs = (
    helper.make_tensor_value_info(
      key, kind, ["n" if size == BATCH else size for size in shape]
    )
    for key, kind, shape in (
      (graph.input, element.UINT8, graph.input_shape),
      (output, element.FLOAT, output_shape),
    )
  )
  return helper.make_model(
    helper.make_graph(nodes, name, [inputs], [outputs], constants),
    opset_imports=[helper.make_opsetid("", OPSET)],
    ir_version=IR_VERSION,
    producer_name="fer_jax",
    producer_version=__version__,
  )


class _Names:
  """Readable names: those of the modules the nodes come from.

  Attributes:
    of: the name in the file of a name in the graph.
    constants: those in use, in the graph's names.
  """

  def __init__(self, graph: Graph, output: str) -> None:
    self.of = {"": "", graph.input: graph.input}
    self.constants: list[str] = []
    self._given = {graph.input, output}
    for node in graph.nodes:
      # Without the model's own class and what JAX notes of calls: "jit(relu)".
      parts = [part for part in node.scope.split("/")[1:] if "(" not in part]
      module = "/".join(parts)
      for position, key in enumerate(node.inputs):
        if key in graph.constants and key not in self.of:
          role = _role(node.op, position)
          self.of[key] = self._unique("/".join(filter(None, (module, role))))
          self.constants.append(key)
      last = node.output == graph.output
      own = self._unique("/".join(filter(None, (module, node.op))))
      self.of[node.output] = output if last else own

  def _unique(self, name: str) -> str:
    chosen, count = name, 1
    while chosen in self._given:
      count += 1
      chosen = f"{name}_{count}"
    self._given.add(chosen)
    return chosen


def _role(op: str, position: int) -> str:
  """The name of a constant by what a node does with it."""
  if op in ("Conv", "Gemm", "MatMul"):
    return "bias" if position == 2 else "weight"
  return {"Mul": "scale", "Add": "shift"}.get(op, f"{op}_{position}")


def _stored(constant: np.ndarray) -> np.ndarray:
  """A constant as the file has it: of single precision, in one block."""
  if constant.dtype == np.float64:
    constant = constant.astype(np.float32)
  return np.array(constant, order="C")


def _attribute(onnx: types.ModuleType, value: Any) -> Any:
  if isinstance(value, np.dtype):
    return onnx.helper.np_dtype_to_tensor_dtype(value)
  if isinstance(value, list | tuple):
    return [int(item) for item in value]
  return value


def _lower(graph: Graph, node: Node) -> list[Node]:
  """A node as operators of ONNX."""
  values = node.attributes
  if node.op == "Affine":
    return _scale_and_shift(graph, node)
  if node.op == "Range":
    bounds = [values["low"], values["high"]]
    if bounds == [0, math.inf]:
      node.op = "Relu"
    else:
      node.op = "Clip"
      node.inputs += [
        graph.constant(np.array(bound, np.float32))
        if math.isfinite(bound)
        else ""
        for bound in bounds
      ]
    node.attributes = {}
  elif node.op == "ReduceSum":  # Whose axes have been an input since opset 13.
    axes = np.array(values["axes"], np.int64)
    node.inputs = [node.inputs[0], graph.constant(axes)]
    node.attributes = {"keepdims": values["keepdims"]}
  return [node]


def _scale_and_shift(graph: Graph, node: Node) -> list[Node]:
  scale, shift = node.attributes["scale"], node.attributes["shift"]
  steps = []
  if (scale != 1).any():
    steps.append(("Mul", scale))
  if shift.any():
    steps.append(("Add", shift))
  nodes, name = [], node.inputs[0]
  for i, (op, constant) in enumerate(steps):
    last = i == len(steps) - 1
    output = node.output if last else f"{node.output}_scaled"
    inputs = [name, graph.constant(constant.astype(np.float32))]
    nodes.append(Node(op, inputs, output, node.shape, {}, node.scope))
    name = output
  return nodes
