"""ONNX operations for JAX's convolutions, matrix products and pooling."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax.inference.onnx.graph import CHANNELS_FIRST, Graph, Shape, Tensor
from fer_jax.inference.onnx.operands import Operand, Rule, unsupported


def _dot_general(
  graph: Graph, x: Operand, y: Operand, *, dimension_numbers: Any, **_: Any
) -> Tensor:
  """A matrix product with constant weights, on either side of them."""
  ((x_axes, y_axes), (batch_axes, _)) = dimension_numbers
  swapped = isinstance(x, np.ndarray)
  tensor, weights = (y, x) if swapped else (x, y)
  axes, rows = (y_axes, x_axes) if swapped else (x_axes, y_axes)
  if not isinstance(tensor, Tensor) or not isinstance(weights, np.ndarray):
    raise unsupported("dot_general of two computed arrays")
  if batch_axes or len(axes) != 1 or weights.ndim != 2:
    raise unsupported(f"dot_general with dimension numbers {dimension_numbers}")
  (axis,), (row,) = axes, rows
  matrix = weights.T if row else weights  # [axis, outputs]
  rank, outputs = len(tensor.shape), matrix.shape[1]
  if axis not in tensor.layout[-2:]:
    others = tuple(a for a in tensor.layout if a != axis)
    images = rank == 4 and axis in (1, 2)
    tensor = graph.store(tensor, CHANNELS_FIRST if images else (*others, axis))
  stored = tuple(
    outputs if a == axis else tensor.shape[a] for a in tensor.layout
  )
  if tensor.layout[-1] == axis:
    names = [tensor.name, graph.constant(matrix)]
  else:
    names = [graph.constant(matrix.T), tensor.name]
  name = graph.add("MatMul", names, stored)
  free = [a for a in range(rank) if a != axis]
  order = [axis, *free] if swapped else [*free, axis]
  shape = tuple(outputs if a == axis else tensor.shape[a] for a in order)
  return Tensor(name, shape, tuple(order.index(a) for a in tensor.layout))


def _convolution(
  graph: Graph,
  x: Operand,
  kernel: Operand,
  *,
  window_strides: Sequence[int],
  padding: Sequence[tuple[int, int]],
  lhs_dilation: Sequence[int],
  rhs_dilation: Sequence[int],
  dimension_numbers: Any,
  feature_group_count: int,
  batch_group_count: int,
  shape: Shape,
  **_: Any,
) -> Tensor:
  if not isinstance(x, Tensor) or not isinstance(kernel, np.ndarray):
    raise unsupported("conv_general_dilated without constant weights")
  if any(d != 1 for d in lhs_dilation) or batch_group_count != 1:
    raise unsupported("conv_general_dilated with lhs_dilation or batch groups")
  if min(min(pair) for pair in padding) < 0:
    raise unsupported("conv_general_dilated with negative padding")
  images = graph.store(x, tuple(dimension_numbers.lhs_spec))
  weights = kernel.transpose(dimension_numbers.rhs_spec)  # [out in h w]
  layout = tuple(dimension_numbers.out_spec)
  name = graph.add(
    "Conv",
    [images.name, graph.constant(weights)],
    tuple(shape[axis] for axis in layout),
    kernel_shape=weights.shape[2:],
    strides=tuple(window_strides),
    pads=tuple(np.array(padding).T.flat),
    dilations=tuple(rhs_dilation),
    group=feature_group_count,
  )
  return Tensor(name, shape, layout)


def _max_pool(
  graph: Graph,
  x: Tensor,
  *,
  window_dimensions: Sequence[int],
  window_strides: Sequence[int],
  padding: Sequence[tuple[int, int]],
  base_dilation: Sequence[int],
  window_dilation: Sequence[int],
  shape: Shape,
  **_: Any,
) -> Tensor:
  alone = (1, 1, (0, 0))  # batch and channels: no window over them
  windows = list(zip(window_dimensions, window_strides, padding, strict=True))
  dilated = {*base_dilation, *window_dilation} != {1}
  if len(windows) != 4 or windows[0] != alone or windows[3] != alone or dilated:
    raise unsupported("reduce_window_max other than over rows and columns")
  images = graph.store(x, CHANNELS_FIRST)
  name = graph.add(
    "MaxPool",
    [images.name],
    tuple(shape[axis] for axis in CHANNELS_FIRST),
    kernel_shape=tuple(window_dimensions[1:3]),
    strides=tuple(window_strides[1:3]),
    pads=tuple(np.array(padding[1:3]).T.flat),
  )
  return Tensor(name, shape, CHANNELS_FIRST)


RULES: dict[str, Rule] = {
  "conv_general_dilated": _convolution,
  "dot_general": _dot_general,
  "reduce_window_max": _max_pool,
}
