"""Names and axes of a layer's tensors in the reference libraries.

Ours are those of Flax: kernels are HWIO, depthwise kernels HW1C and dense
kernels (inputs, outputs). `part` identifies a tensor of a layer: its name in
our tree, except for "offset", a norm's bias, whose name in Keras differs.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Layout:
  """Conventions of one library.

  Attributes:
    separator: separator between the name of a layer and that of its tensor.
    tensors: names of tensors, by part.
    axes: permutation from the library's axes to ours, by kind of kernel
      ("conv", "depthwise", "dense"); none for kinds with equal axes.
    ignored: suffixes of tensors that our tree does not have.
  """

  separator: str
  tensors: Mapping[str, str]
  axes: Mapping[str, tuple[int, ...]]
  ignored: tuple[str, ...] = ()

  def name(self, layer: str, part: str) -> str:
    """Returns the name of a tensor.

    >>> TORCH.name("layer1.0.bn1", "offset")
    'layer1.0.bn1.bias'
    """
    return layer + self.separator + self.tensors[part]

  def to_ours(
    self, array: Float[np.ndarray, "..."], kind: str
  ) -> Float[np.ndarray, "..."]:
    """Returns a tensor with our axes.

    Args:
      array: tensor of the library's file.
      kind: kind of the kernel, or "vector".

    >>> TORCH.to_ours(np.zeros((64, 3, 7, 7)), "conv").shape
    (7, 7, 3, 64)
    """
    axes = self.axes.get(kind)
    return array if axes is None else array.transpose(axes)

  def their_shape(self, shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    """Returns the shape in the library for a shape of ours.

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
  ignored=(".num_batches_tracked",),  # number of training steps
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
  # Equal to ours, except for depthwise kernels: [h, w, c, 1].
  axes={"depthwise": (0, 1, 3, 2)},
)


def kind_of(part: str, shape: tuple[int, ...]) -> str:
  """Returns the kind of a tensor: "vector", "dense", "depthwise" or "conv".

  Args:
    part: see the module's docstring.
    shape: shape in our tree, for a model of 3-channel images.

  >>> kind_of("kernel", (3, 3, 1, 32)), kind_of("kernel", (7, 7, 3, 64))
  ('depthwise', 'conv')
  """
  if part != "kernel":
    return "vector"
  if len(shape) == 2:
    return "dense"
  return "depthwise" if shape[2] == 1 else "conv"
