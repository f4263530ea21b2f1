"""How reference libraries name and lay out the tensors of a layer.

Ours are Flax's: kernels HWIO, depthwise ones HW1C, dense ones (inputs,
outputs). The tensors of a layer are told apart by `part`, which is the name in
our tree, but "offset" for a norm's bias: Keras has another name for it.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Layout:
  """The conventions of one library.

  Attributes:
    separator: between the name of a layer and that of its tensor.
    tensors: names of tensors, by our part.
    axes: by the kind of a kernel ("conv", "depthwise", "dense"), which axes of
      theirs are ours, in our order.
    ignored: endings of names of what has no place in our tree.
  """

  separator: str
  tensors: Mapping[str, str]
  axes: Mapping[str, tuple[int, ...]]
  ignored: tuple[str, ...] = ()

  def name(self, layer: str, part: str) -> str:
    """The name of a tensor.

    >>> TORCH.name("layer1.0.bn1", "offset")
    'layer1.0.bn1.bias'
    """
    return layer + self.separator + self.tensors[part]

  def to_ours(
    self, array: Float[np.ndarray, "..."], kind: str
  ) -> Float[np.ndarray, "..."]:
    """Their tensor with our axes.

    Args:
      array: as their file has it.
      kind: of the kernel, or "vector".

    >>> TORCH.to_ours(np.zeros((64, 3, 7, 7)), "conv").shape
    (7, 7, 3, 64)
    """
    axes = self.axes.get(kind)
    return array if axes is None else array.transpose(axes)

  def their_shape(self, shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    """The shape that `to_ours` makes `shape`.

    >>> TORCH.their_shape((7, 7, 3, 64), "conv")
    (64, 3, 7, 7)
    """
    axes = self.axes.get(kind, tuple(range(len(shape))))
    return tuple(shape[axes.index(i)] for i in range(len(shape)))


TORCH = Layout(
  separator=".",
  tensors={
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "offset": "bias",
    "mean": "running_mean",
    "var": "running_var",
  },
  # OIHW; a depthwise kernel is [c, 1, h, w]; dense ones are (outputs, inputs).
  axes={"conv": (2, 3, 1, 0), "depthwise": (2, 3, 1, 0), "dense": (1, 0)},
  ignored=(".num_batches_tracked",),  # how often BatchNorm was trained
)

KERAS = Layout(
  separator="/",
  tensors={
    "kernel": "kernel",
    "bias": "bias",
    "scale": "gamma",
    "offset": "beta",
    "mean": "moving_mean",
    "var": "moving_variance",
  },
  # As ours, but depthwise kernels are [h, w, c, 1].
  axes={"depthwise": (0, 1, 3, 2)},
)


def kind_of(part: str, shape: tuple[int, ...]) -> str:
  """What a tensor of ours is to a `Layout`.

  Args:
    part: see the module.
    shape: ours, of a model of 3-channel images.

  >>> kind_of("kernel", (3, 3, 1, 32)), kind_of("kernel", (7, 7, 3, 64))
  ('depthwise', 'conv')
  """
  if part != "kernel":
    return "vector"
  if len(shape) == 2:
    return "dense"
  return "depthwise" if shape[2] == 1 else "conv"
