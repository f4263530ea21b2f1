"""ResNet-18/34/50/101/152 (He et al. 2016), v1.5 as in torchvision.

In v1.5 the stride of a bottleneck block is at its 3x3 convolution (Goyal et
al. 2017), not at its first 1x1. Parameter names follow the reference weights:
`conv1`, `bn1`, `layer1_0` ... `layer4_2`, `fc`. With attention, each block also
has a `cbam` (see `fer_jax.models.cbam`).
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import choose, require
from fer_jax.models import cbam
from fer_jax.models.layers import (
  STEMS,
  ModuleDef,
  StochasticDepth,
  apply_stem,
  last_scale_init,
  make_layers,
)
from fer_jax.ops.batch_norm import add_relu

ATTENTIONS = ("none", *cbam.ARRANGEMENTS)


class BasicBlock(nn.Module):
  """Residual block of two 3x3 convolutions.

  Attributes:
    features: number of output channels.
    stride: of the first convolution and of the shortcut.
    conv: convolution.
    norm: batch normalization.
    zero_init_residual: whether the scale of the last norm starts at zero, so
      that the block starts as its shortcut (Goyal et al. 2017, 5.1).
    attention: module applied before the residual addition (Woo et al. 2018,
      figure 3), or None.
    drop: module applied last before that addition, or None.
  """

  features: int
  stride: int
  conv: ModuleDef
  norm: ModuleDef
  zero_init_residual: bool = False
  attention: ModuleDef | None = None
  drop: ModuleDef | None = None
  expansion = 1

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow k"]:
    """Returns feature maps of `features` channels."""
    features, stride = self.features, self.stride
    y = self.conv(features, (3, 3), stride, padding=1, name="conv1")(x)
    y = self.norm(name="bn1", activation="relu")(y)
    y = self.conv(features, (3, 3), padding=1, name="conv2")(y)

    residual = x
    if stride != 1 or x.shape[-1] != features:
      residual = self.conv(features, (1, 1), stride, name="downsample_conv")(x)
      residual = self.norm(name="downsample_bn")(residual)

    return _add_residual(self, y, residual, "bn2")


class BottleneckBlock(nn.Module):
  """Residual block of a 1x1, a 3x3 and a 1x1 convolution.

  Attributes:
    features: channels of the 3x3 convolution, a quarter of the output's.
    stride: of the 3x3 convolution and of the shortcut.
    conv: convolution.
    norm: batch normalization.
    zero_init_residual: see `BasicBlock`.
    attention: see `BasicBlock`.
    drop: see `BasicBlock`.
  """

  features: int
  stride: int
  conv: ModuleDef
  norm: ModuleDef
  zero_init_residual: bool = False
  attention: ModuleDef | None = None
  drop: ModuleDef | None = None
  expansion = 4

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow k"]:
    """Returns feature maps of four times `features` channels."""
    features, stride = self.features, self.stride
    outputs = features * self.expansion
    y = self.conv(features, (1, 1), name="conv1")(x)
    y = self.norm(name="bn1", activation="relu")(y)
    y = self.conv(features, (3, 3), stride, padding=1, name="conv2")(y)
    y = self.norm(name="bn2", activation="relu")(y)
    y = self.conv(outputs, (1, 1), name="conv3")(y)

    residual = x
    if stride != 1 or x.shape[-1] != outputs:
      residual = self.conv(outputs, (1, 1), stride, name="downsample_conv")(x)
      residual = self.norm(name="downsample_bn")(residual)

    return _add_residual(self, y, residual, "bn3")


Block = type[BasicBlock] | type[BottleneckBlock]


def _add_residual(
  block: BasicBlock | BottleneckBlock,
  y: Float[Array, "b h w c"],
  residual: Float[Array, "b h w c"],
  name: str,
) -> Float[Array, "b h w c"]:
  """Ends a block: its last norm, attention and drop, the addition, ReLU."""
  norm = functools.partial(
    block.norm, name=name, scale_init=last_scale_init(block.zero_init_residual)
  )
  if block.attention is None and block.drop is None:  # fused
    return norm(activation="relu")(y, residual=residual)
  y = norm()(y)
  if block.attention is not None:
    y = block.attention(name="cbam")(y)
  if block.drop is not None:
    y = block.drop()(y)
  return add_relu(y, residual)


class ResNet(nn.Module):
  """Residual network on images of 32 pixels or more.

  Attributes:
    stage_sizes: number of blocks per stage; widths are 64, 128, 256, ...
    block: `BasicBlock` or `BottleneckBlock`.
    num_classes: number of classes, the size of the logits.
    stem: "imagenet" (7x7 stride 2, then max pooling stride 2), "small" (3x3
      stride 1) or "small_stride2" (3x3 stride 2), the small ones without
      pooling.
    width: factor of all channels, of which the first stage has 64.
    zero_init_residual: see `BasicBlock`.
    attention: "none", or the arrangement of a CBAM in every block:
      "sequential", "parallel", "channel" or "spatial".
    attention_reduction: the CBAM's `reduction`.
    attention_kernel_size: the CBAM's `kernel_size`.
    stochastic_depth: probability that an example skips the last block in
      training, in [0, 1); from the first block on it rises linearly to that
      (Huang et al. 2016).
    dtype: dtype of the compute; parameters, statistics and logits are float32.
    axis_name: device axis over which BatchNorm statistics are averaged.
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
  stochastic_depth: float = 0.0
  dtype: Any = jnp.float32
  axis_name: str | None = None

  def __post_init__(self) -> None:
    choose("stem", self.stem, STEMS)
    ok = 0 < self.width < math.inf
    require(ok, "model.width", self.width, "be above 0 and finite")
    choose("attention", self.attention, ATTENTIONS)
    cbam.check_sizes(self.attention_reduction, self.attention_kernel_size)
    rate = self.stochastic_depth
    require(0 <= rate < 1, "model.stochastic_depth", rate, "be in [0, 1)")
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns float32 logits; if `train`, updates the batch statistics."""
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
    total = sum(self.stage_sizes)
    for stage, num_blocks in enumerate(self.stage_sizes):
      for i in range(num_blocks):
        number = sum(self.stage_sizes[:stage]) + i + 1
        x = self.block(
          features=features * 2**stage,
          stride=2 if stage > 0 and i == 0 else 1,
          conv=conv,
          norm=norm,
          zero_init_residual=self.zero_init_residual,
          attention=attention,
          drop=self._drop(number / total, train),
          name=f"layer{stage + 1}_{i}",
        )(x)
    x = jnp.mean(x, axis=(1, 2))
    return nn.Dense(self.num_classes, name="fc")(x.astype(jnp.float32))

  def _drop(self, depth: float, train: bool) -> ModuleDef | None:
    """Returns what drops the branch of a block at a depth in 0 .. 1."""
    if not train or not self.stochastic_depth:
      return None
    rate = self.stochastic_depth * depth
    return functools.partial(StochasticDepth, rate, self.axis_name)


# Number of blocks per stage, and their kind (He et al. 2016, table 1).
DEPTHS: dict[str, tuple[tuple[int, ...], Block]] = {
  "resnet18": ((2, 2, 2, 2), BasicBlock),
  "resnet34": ((3, 4, 6, 3), BasicBlock),
  "resnet50": ((3, 4, 6, 3), BottleneckBlock),
  "resnet101": ((3, 4, 23, 3), BottleneckBlock),
  "resnet152": ((3, 8, 36, 3), BottleneckBlock),
}
