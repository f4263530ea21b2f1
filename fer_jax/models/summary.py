"""Summary of a model: shapes, parameters and operations, without running it.

The model is traced with abstract values, so nothing is compiled or computed: a
ResNet-152 takes a second or two.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from fer_jax.models.layer_groups import BLOCK
from fer_jax.ops import dispatch
from fer_jax.tables import format_table

# Layers that multiply by a kernel. Their multiply-accumulates are the kernel's
# size times the number of output positions, also for grouped convolutions: the
# kernel of a group holds the inputs of that group only.
_LAYERS = (nn.Conv, nn.Dense, nn.DenseGeneral)


@dataclasses.dataclass
class Row:
  """A row of the table: one layer, or all blocks of a stage.

  Attributes:
    name: as in the parameter tree.
    output_shape: shape of the output for one image, without the batch; None
      for parameters outside of any module.
    num_parameters: number of parameters, without BatchNorm's statistics.
    macs: multiply-accumulates of the forward pass of one image.
  """

  name: str
  output_shape: tuple[int, ...] | None = None
  num_parameters: int = 0
  macs: int = 0


@dataclasses.dataclass(frozen=True)
class Summary:
  """The layers of a model and their totals; `str()` is a table.

  Operations are those of convolutions and dense layers. Norms, activations,
  pooling and products of two activations (attention maps) are not counted.

  Attributes:
    rows: top-level layers and stages, in the order of their first use.
    input_shape: (height, width, channels).
    first_macs: multiply-accumulates of the first convolution, or of the first
      layer if there is no convolution.
  """

  rows: tuple[Row, ...]
  input_shape: tuple[int, int, int]
  first_macs: int

  @property
  def num_parameters(self) -> int:
    """Number of parameters of the model."""
    return sum(row.num_parameters for row in self.rows)

  @property
  def macs(self) -> int:
    """Multiply-accumulates of the forward pass of one image."""
    return sum(row.macs for row in self.rows)

  @property
  def forward_flops(self) -> int:
    """Floating-point operations of the forward pass of one image."""
    return 2 * self.macs

  @property
  def training_flops(self) -> int:
    """Floating-point operations of one image, forward and backward.

    The gradients of a layer's input and of its kernel cost as much as its
    forward pass each; the gradient of the image is not computed.
    """
    return 2 * (3 * self.macs - self.first_macs)

  def __str__(self) -> str:
    cells = [("layer", "output", "parameters", "MMACs/image")]
    cells += [_cells(row) for row in self.rows]
    cells.append(_cells(Row("total", None, self.num_parameters, self.macs)))
    lines = format_table(cells, num_left=2)
    rule = "-" * len(lines[0])
    lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
    return "\n".join(
      [
        *lines,
        f"per {_size(self.input_shape)} image:"
        f" {self.forward_flops / 1e9:,.3f} GFLOPs forward,"
        f" {self.training_flops / 1e9:,.3f} GFLOPs training",
      ]
    )


def summarize(model: nn.Module, input_shape: tuple[int, int, int]) -> Summary:
  """Counts the parameters of a model and its operations per image.

  Args:
    model: called as `model(x, train=False)` on Float[1 h w c]. A layer that is
      called twice counts twice in operations, once in parameters.
    input_shape: (height, width, channels).

  >>> from fer_jax.models import create
  >>> summary = summarize(create("resnet18", num_classes=7), (48, 48, 3))
  >>> f"{summary.num_parameters:,}"
  '11,180,103'
  """
  rows: dict[str, Row] = {}
  convolutions: list[int] = []
  others: list[int] = []

  def record(next_fn: Any, args: Any, kwargs: Any, context: Any) -> Any:
    out = next_fn(*args, **kwargs)
    module = context.module
    if context.method_name != "__call__":
      return out
    row = _row(rows, module.path, model)
    if isinstance(module, _LAYERS):
      macs = _macs(module, out)
      row.macs += macs
      (convolutions if isinstance(module, nn.Conv) else others).append(macs)
    if len(module.path) < 2:
      row.output_shape = _shape(out)
    return out

  def trace(x: jax.Array) -> Any:
    # All lowerings have equal shapes; XLA's are the fastest to trace.
    with (
      nn.intercept_methods(record),
      dispatch.use_xla(),
    ):
      return model.init(jax.random.key(0), x, train=False)

  x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
  params = nn.unbox(jax.eval_shape(trace, x)).get("params", {})
  for path, leaf in flatten_dict(params).items():
    _row(rows, path[:-1], model).num_parameters += leaf.size
  return Summary(
    rows=tuple(r for r in rows.values() if r.num_parameters or r.macs),
    input_shape=input_shape,
    first_macs=next(iter(convolutions + others), 0),
  )


def _macs(layer: Any, out: Any) -> int:
  """Returns the multiply-accumulates of one call of a layer."""
  kernel = nn.unbox(layer.get_variable("params", "kernel"))
  features = layer.features
  per_position = features if isinstance(features, int) else math.prod(features)
  return kernel.size * (out.size // per_position)


def _row(rows: dict[str, Row], path: tuple[str, ...], model: nn.Module) -> Row:
  """Returns the row of a module, which it adds if there is none.

  Args:
    rows: rows by name.
    path: path of the module in the model; () for the model, whose row has the
      name of its class.
    model: the model.
  """
  name = path[0] if path else type(model).__name__
  if block := BLOCK.fullmatch(name):
    name = block[1]
  return rows.setdefault(name, Row(name))


def _shape(out: Any) -> tuple[int, ...] | None:
  """Returns the shape of the first output for one image."""
  leaves = jax.tree.leaves(out)
  return tuple(leaves[0].shape[1:]) if leaves else None


def _cells(row: Row) -> tuple[str, str, str, str]:
  """Returns a row of the table."""
  shape = "" if row.output_shape is None else _size(row.output_shape)
  macs = f"{row.macs / 1e6:,.2f}" if row.macs else "-"
  return row.name, shape, f"{row.num_parameters:,}", macs


def _size(shape: tuple[int, ...]) -> str:
  return " x ".join(map(str, shape))
