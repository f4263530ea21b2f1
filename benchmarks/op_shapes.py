"""The convolutions and poolings that models are made of, for `ops`."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from fer_jax import models
from fer_jax.ops import convolution as model_ops
from fer_jax.ops import lowerings

NUM_CLASSES = 7


@dataclasses.dataclass(frozen=True)
class Op:
  """A convolution, or max pooling where `kernel` has two numbers.

  Attributes:
    image: shape NHWC.
    kernel: shape HWIO, or the window.
    strides: rows, columns.
    pads: before and after, of rows and of columns.
  """

  image: tuple[int, ...]
  kernel: tuple[int, ...]
  strides: lowerings.Strides
  pads: lowerings.Pads

  @property
  def kind(self) -> str:
    """What people call it."""
    sides = f"{self.kernel[0]}x{self.kernel[1]}"
    if len(self.kernel) == 2:
      return f"max pool {sides}"
    groups = self.image[3] // self.kernel[2]
    return f"{'conv' if groups == 1 else 'depthwise'} {sides}"

  @property
  def shape(self) -> str:
    """Map, channels and stride."""
    _, height, width, channels = self.image
    outputs = f"->{self.kernel[3]}" if len(self.kernel) == 4 else ""
    return f"{height}x{width}x{channels}{outputs} /{self.strides[0]}"

  @property
  def flops(self) -> int:
    """Operations of each direction; 0 for pooling, which only compares."""
    if len(self.kernel) == 2:
      return 0
    size = lowerings.output_size(
      self.image, self.kernel, self.strides, self.pads
    )
    return 2 * self.image[0] * math.prod(size) * math.prod(self.kernel)


def collect(
  names: Sequence[str], image_size: int, batch_size: int
) -> dict[Op, dict[str, int]]:
  """Traces models, and notes what they compute.

  Args:
    names: of models.
    image_size: pixels a side, of one channel.
    batch_size: images.

  Returns:
    How often each model has an operation, in the order of first use.
  """
  found: dict[Op, dict[str, int]] = {}
  rule_for, max_pool = model_ops.rule_for, model_ops.max_pool
  name = ""

  def note(op: Op) -> None:
    users = found.setdefault(op, {})
    users[name] = users.get(name, 0) + 1

  def noted_rule(*args: Any) -> model_ops.Rule:
    note(Op(*args[:4]))
    return rule_for(*args)

  def noted_pool(
    x: jax.Array, window: Any, strides: Any, padding: Any = ((0, 0), (0, 0))
  ) -> jax.Array:
    note(Op(x.shape, tuple(window), tuple(strides), padding))
    return max_pool(x, window, strides, padding)

  images = jax.ShapeDtypeStruct(
    (batch_size, image_size, image_size, 1), jnp.float32
  )
  with (
    mock.patch.object(model_ops, "rule_for", noted_rule),
    mock.patch.object(model_ops, "max_pool", noted_pool),
  ):
    for name in names:  # noqa: B007 - `note` reads it.
      model = models.create(name, NUM_CLASSES)
      jax.eval_shape(model.init, jax.random.key(0), images)
  return found
