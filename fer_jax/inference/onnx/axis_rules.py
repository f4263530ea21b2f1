"""ONNX operations for JAX primitives that move, join, cut or reduce axes."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax.inference.onnx.graph import BATCH, Graph, Tensor, reshape
from fer_jax.inference.onnx.operands import (
  Operand,
  Rule,
  sizes,
  stored_name,
  unsupported,
)


def _broadcast_in_dim(
  graph: Graph,
  x: Operand,
  *,
  shape: Sequence[Any],
  broadcast_dimensions: Sequence[int],
  **_: Any,
) -> Operand:
  target = sizes(shape)
  spread = [1] * len(target)
  for axis, size in zip(broadcast_dimensions, x.shape, strict=True):
    spread[axis] = size
  if isinstance(x, np.ndarray):
    # Along the batch it stays of size 1, which broadcasts.
    fixed = tuple(1 if size == BATCH else size for size in target)
    return np.broadcast_to(x.reshape(spread), fixed)
  x = reshape(graph, x, tuple(spread))
  if x.shape == target:
    return x
  stored = tuple(target[axis] for axis in x.layout)
  grown = np.array([1 if size == BATCH else size for size in stored], np.int64)
  name = graph.add("Expand", [x.name, graph.constant(grown)], stored)
  return Tensor(name, target, x.layout)


def _reshape(
  graph: Graph,
  x: Tensor,
  *,
  new_sizes: Sequence[Any],
  dimensions: Any = None,
  **_: Any,
) -> Tensor:
  if dimensions is not None:
    raise unsupported("reshape with dimensions")
  return reshape(graph, x, sizes(new_sizes))


def _squeeze(
  graph: Graph, x: Tensor, *, dimensions: Sequence[int], **_: Any
) -> Tensor:
  kept = [d for axis, d in enumerate(x.shape) if axis not in dimensions]
  return reshape(graph, x, tuple(kept))


def _transpose(
  graph: Graph, x: Tensor, *, permutation: Sequence[int], **_: Any
) -> Tensor:
  del graph
  shape = tuple(x.shape[axis] for axis in permutation)
  layout = tuple(list(permutation).index(axis) for axis in x.layout)
  return Tensor(x.name, shape, layout)


def _reduce(
  op: str, graph: Graph, x: Tensor, *, axes: Sequence[int], **_: Any
) -> Tensor:
  kept = [axis for axis in range(len(x.shape)) if axis not in axes]
  layout = tuple(kept.index(axis) for axis in x.layout if axis in kept)
  shape = tuple(x.shape[axis] for axis in kept)
  name = graph.add(
    op,
    [x.name],
    tuple(shape[axis] for axis in layout),
    axes=sorted(x.layout.index(axis) for axis in axes),
    keepdims=0,
  )
  return Tensor(name, shape, layout)


def _concatenate(
  graph: Graph, *operands: Operand, dimension: int, **_: Any
) -> Tensor:
  leading = next(x for x in operands if isinstance(x, Tensor))
  names = [stored_name(graph, x, leading.layout) for x in operands]
  shape = list(leading.shape)
  shape[dimension] = sum(x.shape[dimension] for x in operands)
  name = graph.add(
    "Concat",
    names,
    tuple(shape[axis] for axis in leading.layout),
    axis=leading.layout.index(dimension),
  )
  return Tensor(name, tuple(shape), leading.layout)


def _stack(graph: Graph, *operands: Operand, axis: int, **_: Any) -> Tensor:
  parts: list[Operand] = []
  for x in operands:
    shape = (*x.shape[:axis], 1, *x.shape[axis:])
    if isinstance(x, Tensor):
      parts.append(reshape(graph, x, shape))
    else:
      parts.append(x.reshape(shape))
  return _concatenate(graph, *parts, dimension=axis)


def _slice(
  graph: Graph,
  x: Tensor,
  *,
  start_indices: Sequence[int],
  limit_indices: Sequence[Any],
  strides: Sequence[int] | None = None,
  **_: Any,
) -> Tensor:
  steps = strides or (1,) * len(x.shape)
  limits = sizes(limit_indices)
  shape, cut = list(x.shape), []
  for axis, (start, stop, step) in enumerate(
    zip(start_indices, limits, steps, strict=True)
  ):
    if (start, stop, step) == (0, x.shape[axis], 1):
      continue
    if BATCH in (stop, x.shape[axis]):
      raise unsupported("slice along the batch")
    shape[axis] = -(-(stop - start) // step)
    cut.append((start, stop, x.layout.index(axis), step))
  if not cut:
    return x
  constants = [np.array(column, np.int64) for column in zip(*cut, strict=True)]
  names = [x.name, *map(graph.constant, constants)]
  name = graph.add("Slice", names, tuple(shape[axis] for axis in x.layout))
  return Tensor(name, tuple(shape), x.layout)


def _split(
  graph: Graph, x: Tensor, *, sizes: Sequence[int], axis: int, **_: Any
) -> list[Operand]:
  parts: list[Operand] = []
  start = 0
  for size in map(int, sizes):
    starts, limits = [0] * len(x.shape), list(x.shape)
    starts[axis], limits[axis] = start, start + size
    parts.append(_slice(graph, x, start_indices=starts, limit_indices=limits))
    start += size
  return parts


RULES: dict[str, Rule] = {
  "broadcast_in_dim": _broadcast_in_dim,
  "concatenate": _concatenate,
  "reduce_max": functools.partial(_reduce, "ReduceMax"),
  "reduce_min": functools.partial(_reduce, "ReduceMin"),
  "reduce_sum": functools.partial(_reduce, "ReduceSum"),
  "reshape": _reshape,
  "slice": _slice,
  "split": _split,
  "squeeze": _squeeze,
  "stack": _stack,
  "transpose": _transpose,
}
