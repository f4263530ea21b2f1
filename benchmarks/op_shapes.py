"""The convolutions and poolings in models, for `ops`."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from fer_jax import models
from fer_jax.ops import convolution as model_ops
from fer_jax.ops import dispatch, lowerings

NUM_CLASSES = 7


@dataclasses.dataclass(frozen=True)
class Op:
  """A convolution, or max pooling if `kernel` has two numbers.

  Attributes:
    image: shape NHWC.
    kernel: shape HWIO, or the size of the window.
    strides: of rows and of columns.
    pads: (before, after), of rows and of columns.
  """

  image: tuple[int, ...]
  kernel: tuple[int, ...]
  strides: lowerings.Strides
  pads: lowerings.Pads

  @property
  def kind(self) -> str:
    """Name of the kind of operation."""
    sides = f"{self.kernel[0]}x{self.kernel[1]}"
    if len(self.kernel) == 2:
      return f"max pool {sides}"
    groups = self.image[3] // self.kernel[2]
    return f"{'conv' if groups == 1 else 'depthwise'} {sides}"

  @property
  def shape(self) -> str:
    """Feature map, channels and stride."""
    _, height, width, channels = self.image
    outputs = f"->{self.kernel[3]}" if len(self.kernel) == 4 else ""
    return f"{height}x{width}x{channels}{outputs} /{self.strides[0]}"

  @property
  def flops(self) -> int:
    """Floating-point operations of each direction; 0 for pooling."""
    if len(self.kernel) == 2:
      return 0
    size = lowerings.output_size(
      self.image, self.kernel, self.strides, self.pads
    )
    return 2 * self.image[0] * math.prod(size) * math.prod(self.kernel)


def collect(
  names: Sequence[str], image_size: int, batch_size: int
) -> dict[Op, dict[str, int]]:
  """Traces models and collects their operations.

  Args:
    names: names of models.
    image_size: height and width in pixels; images have one channel.
    batch_size: number of images.

  Returns:
    How often each model has each operation, in the order of first use.
  """
  found: dict[Op, dict[str, int]] = {}
  rule_for, max_pool = dispatch.rule_for, model_ops.max_pool
  name = ""

  def record(op: Op) -> None:
    users = found.setdefault(op, {})
    users[name] = users.get(name, 0) + 1

  def recording_rule(*args: Any) -> dispatch.Rule:
    record(Op(*args[:4]))
    return rule_for(*args)

  def recording_pool(
    x: jax.Array, window: Any, strides: Any, padding: Any = ((0, 0), (0, 0))
  ) -> jax.Array:
    record(Op(x.shape, tuple(window), tuple(strides), padding))
    return max_pool(x, window, strides, padding)

  images = jax.ShapeDtypeStruct(
    (batch_size, image_size, image_size, 1), jnp.float32
  )
  with (
    mock.patch.object(dispatch, "rule_for", recording_rule),
    mock.patch.object(model_ops, "max_pool", recording_pool),
  ):
    for name in names:  # noqa: B007 - `record` reads it.
      model = models.create(name, NUM_CLASSES)
      jax.eval_shape(model.init, jax.random.key(0), images)
  return found
