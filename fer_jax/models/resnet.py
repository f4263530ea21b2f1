"""ResNet-18/34/50/101/152 (He et al. 2016), v1.5 as in torchvision.

In v1.5 the stride of a bottleneck block is at its 3x3 convolution (Goyal et
al. 2017), not at its first 1x1. Parameter names follow the reference weights:
`conv1`, `bn1`, `layer1_0` ... `layer4_2`, `fc`. With attention each block has
a `cbam` more (see `cbam`).
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import choose, require
from fer_jax.models import cbam
from fer_jax.models.stems import (
  STEMS,
  apply_stem,
  last_scale_init,
  make_layers,
)
from fer_jax.ops.batch_norm import add_relu

ATTENTIONS = ("none", *cbam.ARRANGEMENTS)


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut.

  Attributes:
    features: channels of the block.
    stride: of the first convolution and of the shortcut.
    conv: makes convolutions (dtype and initialiser bound).
    norm: makes normalisations (mode and dtype bound).
    zero_init_residual: whether the last norm's scale starts at zero, so that
      the block starts as its shortcut (Goyal et al. 2017, 5.1).
    attention: makes what weights the last norm's output before the shortcut is
      added (Woo et al. 2018, figure 3), or None.
  """

  features: int
  stride: int
  conv: Callable[..., Any]
  norm: Callable[..., Any]
  zero_init_residual: bool = False
  attention: Callable[..., Any] | None = None
  expansion = 1

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow k"]:
    """Returns feature maps of `features` channels."""
    y = self.conv(self.features, (3, 3), self.stride, padding=1, name="conv1")(
      x
    )
    y = self.norm(name="bn1", activation="relu")(y)
    y = self.conv(self.features, (3, 3), padding=1, name="conv2")(y)
    return _last_norm(self, "bn2", y, _shortcut(self, x, self.features))


class BottleneckBlock(nn.Module):
  """1x1 down, 3x3, 1x1 up to four times the channels, and a shortcut.

  Attributes: as `BasicBlock`; `features` is the width of the 3x3.
  """

  features: int
  stride: int
  conv: Callable[..., Any]
  norm: Callable[..., Any]
  zero_init_residual: bool = False
  attention: Callable[..., Any] | None = None
  expansion = 4

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow k"]:
    """Returns feature maps of four times `features` channels."""
    features = self.features * self.expansion
    y = self.conv(self.features, (1, 1), name="conv1")(x)
    y = self.norm(name="bn1", activation="relu")(y)
    y = self.conv(self.features, (3, 3), self.stride, padding=1, name="conv2")(
      y
    )
    y = self.norm(name="bn2", activation="relu")(y)
    y = self.conv(features, (1, 1), name="conv3")(y)
    return _last_norm(self, "bn3", y, _shortcut(self, x, features))


Block = type[BasicBlock] | type[BottleneckBlock]


class ResNet(nn.Module):
  """A residual network on images of 32 pixels or more.

  Attributes:
    stage_sizes: blocks in each of the stages; widths are 64, 128, 256, ...
    block: `BasicBlock` or `BottleneckBlock`.
    num_classes: outputs.
    stem: "imagenet" (7x7 stride 2, then max pooling stride 2), "small" (3x3
      stride 1) or "small_stride2" (3x3 stride 2), the small ones without pool.
    width: multiplies all channel counts, 64 of the first stage among them.
    zero_init_residual: see `BasicBlock`.
    attention: "none", or the arrangement of a CBAM in every block:
      "sequential", "parallel", "channel" or "spatial".
    attention_reduction: the CBAM's `reduction`.
    attention_kernel_size: the CBAM's `kernel_size`.
    dtype: of the compute; parameters, statistics and logits are float32.
    axis_name: the device axis over which BatchNorm statistics are averaged.
  """

  stage_sizes: tuple[int, ...]
  block: Block
  num_classes: int
  stem: str = "imagenet"
  width: float = 1.0
  zero_init_residual: bool = False
  attention: str = "none"
  attention_reduction: int = 16
  attention_kernel_size: int = 7
  dtype: Any = jnp.float32
  axis_name: str | None = None

  def __post_init__(self) -> None:
    choose("stem", self.stem, STEMS)
    require(self.width > 0, "model.width", self.width, "be above 0")
    choose("attention", self.attention, ATTENTIONS)
    cbam.check_sizes(self.attention_reduction, self.attention_kernel_size)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns float32 logits; with `train`, batch statistics are updated."""
    conv, norm = make_layers(train, self.dtype, self.axis_name)
    attention = None
    if self.attention != "none":
      attention = functools.partial(
        cbam.CBAM,
        conv=conv,
        norm=norm,
        arrangement=self.attention,
        reduction=self.attention_reduction,
        kernel_size=self.attention_kernel_size,
      )
    features = max(1, round(64 * self.width))
    x = apply_stem(x.astype(self.dtype), self.stem, conv, norm, features)
    for stage, num_blocks in enumerate(self.stage_sizes):
      for i in range(num_blocks):
        x = self.block(
          features=features * 2**stage,
          stride=2 if stage > 0 and i == 0 else 1,
          conv=conv,
          norm=norm,
          zero_init_residual=self.zero_init_residual,
          attention=attention,
          name=f"layer{stage + 1}_{i}",
        )(x)
    x = jnp.mean(x, axis=(1, 2))
    return nn.Dense(self.num_classes, name="fc")(x.astype(jnp.float32))


def _last_norm(block: Any, name: str, y: Array, shortcut: Array) -> Array:
  """The end of a block: norm, attention if any, and ReLU of the sum."""
  norm = functools.partial(
    block.norm,
    name=name,
    scale_init=last_scale_init(block.zero_init_residual),
  )
  if block.attention is None:
    return norm(activation="relu")(y, shortcut=shortcut)
  return add_relu(block.attention(name="cbam")(norm()(y)), shortcut)


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
