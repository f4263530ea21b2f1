"""Operands of the rules that turn JAX primitives into ONNX operations."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from fer_jax.inference.onnx.graph import BATCH, Graph, Layout, Shape, Tensor

Operand = Tensor | np.ndarray
# Called with the graph, the operands of a primitive (one at least is a Tensor,
# except for broadcast_in_dim) and its parameters, to which `shape`, that of the
# result, is added; adds nodes and returns the result.
Rule = Callable[..., Operand | list[Operand]]


def unsupported(what: str) -> UserError:
  """Returns the error of a program that cannot be converted.

  Args:
    what: the part that is not supported.
  """
  return UserError(
    f"cannot export to ONNX: {what} is not supported; export to StableHLO, or"
    " add a rule to fer_jax/inference/onnx"
  )


def sizes(shape: Sequence[Any]) -> Shape:
  """Returns a shape of JAX with `BATCH` for a dimension that is not fixed.

  Args:
    shape: numbers, and JAX's symbolic dimensions.

  Raises:
    UserError: several dimensions are not fixed.
  """
  fixed = tuple(d if isinstance(d, int) else BATCH for d in shape)
  if fixed.count(BATCH) > 1:
    raise unsupported(f"an array of shape {tuple(map(str, shape))}")
  return fixed


def broadcast(shapes: Sequence[Shape]) -> Shape:
  """Returns the common shape; `BATCH` is larger than any size.

  Args:
    shapes: as the JAX program sees them.
  """
  rank = max(map(len, shapes))
  padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
  return tuple(
    BATCH if BATCH in column else max(column)
    for column in zip(*padded, strict=True)
  )


def stored_name(graph: Graph, x: Operand, layout: Layout) -> str:
  """Returns the name of an operand stored in a layout, or of a scalar.

  Args:
    graph: what computes the operand.
    x: the operand.
    layout: the order of its axes.
  """
  if isinstance(x, Tensor):
    return graph.store(x, layout).name if x.shape else x.name
  return graph.constant(laid_out(x, layout))


def laid_out(constant: np.ndarray, layout: Layout) -> np.ndarray:
  """Returns a constant with its axes in another order, unless it is a scalar.

  Args:
    constant: as the JAX program sees it.
    layout: the order of its axes.
  """
  return constant.transpose(layout) if constant.ndim else constant
