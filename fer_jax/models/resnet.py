"""ResNet-18/34/50/101/152 (He et al. 2016), v1.5 as in torchvision.

In v1.5 the stride of a bottleneck block is at its 3x3 convolution (Goyal et
al. 2017), not at its first 1x1. Parameter names follow the reference weights:
`conv1`, `bn1`, `layer1_0` ... `layer4_2`, `fc`.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import choose
from fer_jax.models import ops

STEMS = ("imagenet", "small", "small_stride2")

# He et al. 2015: normal, by the number of outputs, as torchvision.
kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut.

  Attributes:
    features: channels of the block.
    stride: of the first convolution and of the shortcut.
    conv: makes convolutions (dtype and initialiser bound).
    norm: makes normalisations (mode and dtype bound).
    zero_init_residual: whether the last norm's scale starts at zero, so that
      the block starts as its shortcut (Goyal et al. 2017, 5.1).
  """

  features: int
  stride: int
  conv: Callable[..., Any]
  norm: Callable[..., Any]
  zero_init_residual: bool = False
  expansion = 1

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow k"]:
    """Returns feature maps of `features` channels."""
    y = self.conv(self.features, (3, 3), self.stride, padding=1, name="conv1")(
      x
    )
    y = nn.relu(self.norm(name="bn1")(y))
    y = self.conv(self.features, (3, 3), padding=1, name="conv2")(y)
    y = self.norm(
      name="bn2", scale_init=last_scale_init(self.zero_init_residual)
    )(y)
    return nn.relu(y + _shortcut(self, x, self.features))


class BottleneckBlock(nn.Module):
  """1x1 down, 3x3, 1x1 up to four times the channels, and a shortcut.

  Attributes: as `BasicBlock`; `features` is the width of the 3x3.
  """

  features: int
  stride: int
  conv: Callable[..., Any]
  norm: Callable[..., Any]
  zero_init_residual: bool = False
  expansion = 4

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow k"]:
    """Returns feature maps of four times `features` channels."""
    features = self.features * self.expansion
    y = self.conv(self.features, (1, 1), name="conv1")(x)
    y = nn.relu(self.norm(name="bn1")(y))
    y = self.conv(self.features, (3, 3), self.stride, padding=1, name="conv2")(
      y
    )
    y = nn.relu(self.norm(name="bn2")(y))
    y = self.conv(features, (1, 1), name="conv3")(y)
    y = self.norm(
      name="bn3", scale_init=last_scale_init(self.zero_init_residual)
    )(y)
    return nn.relu(y + _shortcut(self, x, features))


Block = type[BasicBlock] | type[BottleneckBlock]


class ResNet(nn.Module):
  """A residual network on images of 32 pixels or more.

  Attributes:
    stage_sizes: blocks in each of the stages; widths are 64, 128, 256, ...
    block: `BasicBlock` or `BottleneckBlock`.
    num_classes: outputs.
    stem: "imagenet" (7x7 stride 2, then max pooling stride 2), "small" (3x3
      stride 1) or "small_stride2" (3x3 stride 2), the small ones without pool.
    zero_init_residual: see `BasicBlock`.
    dtype: of the compute; parameters, statistics and logits are float32.
    axis_name: the device axis over which BatchNorm statistics are averaged.
  """

  stage_sizes: tuple[int, ...]
  block: Block
  num_classes: int
  stem: str = "imagenet"
  zero_init_residual: bool = False
  dtype: Any = jnp.float32
  axis_name: str | None = None

  def __post_init__(self) -> None:
    choose("stem", self.stem, STEMS)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns float32 logits; with `train`, batch statistics are updated."""
    conv = functools.partial(
      ops.Conv, use_bias=False, dtype=self.dtype, kernel_init=kernel_init
    )
    norm = functools.partial(
      nn.BatchNorm,
      use_running_average=not train,
      momentum=0.9,
      epsilon=1e-5,
      dtype=self.dtype,
      axis_name=self.axis_name if train else None,
    )
    x = self._stem(x.astype(self.dtype), conv, norm)
    for stage, num_blocks in enumerate(self.stage_sizes):
      for i in range(num_blocks):
        x = self.block(
          features=64 * 2**stage,
          stride=2 if stage > 0 and i == 0 else 1,
          conv=conv,
          norm=norm,
          zero_init_residual=self.zero_init_residual,
          name=f"layer{stage + 1}_{i}",
        )(x)
    x = jnp.mean(x, axis=(1, 2))
    return nn.Dense(self.num_classes, name="fc")(x.astype(jnp.float32))

  def _stem(self, x: Array, conv: Any, norm: Any) -> Array:
    if self.stem == "imagenet":
      x = conv(64, (7, 7), 2, padding=3, name="conv1")(x)
    else:
      stride = 2 if self.stem == "small_stride2" else 1
      x = conv(64, (3, 3), stride, padding=1, name="conv1")(x)
    x = nn.relu(norm(name="bn1")(x))
    if self.stem == "imagenet":
      x = ops.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    return x


def last_scale_init(zero: bool) -> nn.initializers.Initializer:
  """The initialiser of a block's last norm scale."""
  return nn.initializers.zeros if zero else nn.initializers.ones


def _shortcut(block: Any, x: Array, features: int) -> Array:
  """`x` itself, or projected where the block changes its shape."""
  if block.stride == 1 and x.shape[-1] == features:
    return x
  x = block.conv(features, (1, 1), block.stride, name="downsample_conv")(x)
  return block.norm(name="downsample_bn")(x)


DEPTHS: dict[str, tuple[tuple[int, ...], Block]] = {
  "resnet18": ((2, 2, 2, 2), BasicBlock),
  "resnet34": ((3, 4, 6, 3), BasicBlock),
  "resnet50": ((3, 4, 6, 3), BottleneckBlock),
  "resnet101": ((3, 4, 23, 3), BottleneckBlock),
  "resnet152": ((3, 8, 36, 3), BottleneckBlock),
}
