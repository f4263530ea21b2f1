"""ONNX operations for JAX primitives that work element by element."""

import functools
import math
from typing import Any

import numpy as np

from fer_jax.inference.onnx.graph import BATCH, Graph, Tensor
from fer_jax.inference.onnx.operands import (
  Operand,
  Rule,
  broadcast,
  laid_out,
  stored_name,
  unsupported,
)


def _elementwise(op: str, graph: Graph, *operands: Operand, **_: Any) -> Tensor:
  """An operation on arrays that broadcast against each other."""
  leading = max((x for x in operands if isinstance(x, Tensor)), key=_volume)
  names = [stored_name(graph, x, leading.layout) for x in operands]
  shape = broadcast([x.shape for x in operands])
  name = graph.add(op, names, tuple(shape[axis] for axis in leading.layout))
  return Tensor(name, shape, leading.layout)


def _volume(tensor: Tensor) -> tuple[int, int]:
  return tensor.shape.count(BATCH), abs(math.prod(tensor.shape))


def _arithmetic(
  op: str, graph: Graph, x: Operand, y: Operand, **_: Any
) -> Tensor:
  """Add, Sub, Mul or Div; with a constant, an Affine where that is the same."""
  if isinstance(x, Tensor) and isinstance(y, Tensor):
    return _elementwise(op, graph, x, y)
  tensor, constant = (x, y) if isinstance(x, Tensor) else (y, x)
  assert isinstance(tensor, Tensor) and isinstance(constant, np.ndarray)
  swapped = tensor is y
  floating = constant.dtype.kind == "f"
  keeps = broadcast([tensor.shape, constant.shape]) == tensor.shape
  if not (floating and keeps) or (op == "Div" and swapped):
    return _elementwise(op, graph, x, y)
  c = laid_out(constant, tensor.layout).astype(np.float64)
  scale, shift = {
    "Add": (np.ones(()), c),
    "Sub": (-np.ones(()), c) if swapped else (np.ones(()), -c),
    "Mul": (c, np.zeros(())),
    "Div": (1 / c if op == "Div" else c, np.zeros(())),
  }[op]
  return _like(graph, "Affine", tensor, scale=scale, shift=shift)


def _like(graph: Graph, op: str, x: Tensor, **attributes: Any) -> Tensor:
  """An operation on each element of one tensor."""
  name = graph.add(op, [x.name], x.stored_shape, **attributes)
  return Tensor(name, x.shape, x.layout)


def _unary(op: str, graph: Graph, x: Tensor, **_: Any) -> Tensor:
  return _like(graph, op, x)


def _limit(op: str, graph: Graph, x: Operand, y: Operand, **_: Any) -> Tensor:
  """Max or Min; with a number, a Range."""
  tensor, bound = (x, y) if isinstance(x, Tensor) else (y, x)
  if isinstance(bound, Tensor) or bound.size > 1 or bound.dtype.kind != "f":
    return _elementwise(op, graph, x, y)
  assert isinstance(tensor, Tensor)
  value = bound.item()
  low, high = (value, math.inf) if op == "Max" else (-math.inf, value)
  return _like(graph, "Range", tensor, low=low, high=high)


def _affine(
  scale: float, shift: float, graph: Graph, x: Tensor, **_: Any
) -> Tensor:
  return _like(graph, "Affine", x, scale=np.array(scale), shift=np.array(shift))


def _log1p(graph: Graph, x: Tensor, **_: Any) -> Tensor:
  return _like(graph, "Log", _affine(1.0, 1.0, graph, x))


def _erfc(graph: Graph, x: Tensor, **_: Any) -> Tensor:
  return _affine(-1.0, 1.0, graph, _like(graph, "Erf", x))


def _rsqrt(graph: Graph, x: Tensor, **_: Any) -> Tensor:
  return _like(graph, "Reciprocal", _like(graph, "Sqrt", x))


def _power(graph: Graph, x: Tensor, y: int = 2, **_: Any) -> Tensor:
  if y == 2:
    return _elementwise("Mul", graph, x, x)
  return _elementwise("Pow", graph, x, np.array(y, np.float32))


def _not_equal(graph: Graph, x: Operand, y: Operand, **_: Any) -> Tensor:
  return _like(graph, "Not", _elementwise("Equal", graph, x, y))


def _select(graph: Graph, which: Operand, *cases: Operand, **_: Any) -> Tensor:
  if len(cases) != 2:
    raise unsupported(f"select_n of {len(cases)} cases")
  if_false, if_true = cases
  return _elementwise("Where", graph, which, if_true, if_false)


def _same(graph: Graph, x: Operand, **_: Any) -> Operand:
  del graph
  return x


def _cast(graph: Graph, x: Tensor, *, new_dtype: Any, **_: Any) -> Tensor:
  return _like(graph, "Cast", x, to=np.dtype(new_dtype))


_partial = functools.partial

RULES: dict[str, Rule] = {
  "abs": _partial(_unary, "Abs"),
  "add": _partial(_arithmetic, "Add"),
  "and": _partial(_elementwise, "And"),
  "convert_element_type": _cast,
  "copy": _same,
  "div": _partial(_arithmetic, "Div"),
  "eq": _partial(_elementwise, "Equal"),
  "erf": _partial(_unary, "Erf"),
  "erfc": _erfc,
  "exp": _partial(_unary, "Exp"),
  "ge": _partial(_elementwise, "GreaterOrEqual"),
  "gt": _partial(_elementwise, "Greater"),
  "integer_pow": _power,
  "le": _partial(_elementwise, "LessOrEqual"),
  "log": _partial(_unary, "Log"),
  "log1p": _log1p,
  "logistic": _partial(_unary, "Sigmoid"),
  "lt": _partial(_elementwise, "Less"),
  "max": _partial(_limit, "Max"),
  "min": _partial(_limit, "Min"),
  "mul": _partial(_arithmetic, "Mul"),
  "ne": _not_equal,
  "neg": _partial(_affine, -1.0, 0.0),
  "not": _partial(_unary, "Not"),
  "or": _partial(_elementwise, "Or"),
  "rsqrt": _rsqrt,
  "select_n": _select,
  "sqrt": _partial(_unary, "Sqrt"),
  "square": _power,
  "stop_gradient": _same,
  "sub": _partial(_arithmetic, "Sub"),
  "tanh": _partial(_unary, "Tanh"),
}
