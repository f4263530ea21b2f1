"""MobileNet v1 (Howard et al. 2017) and MobileNetV2 (Sandler et al. 2018).

Parameter names, and the names of the same layers in the reference weights:

* `conv1`, `bn1`: the stem. torchvision `features.0`, Keras `conv1`/`Conv1`.
* `blockN`, N from 1. v1 (13 blocks): `depthwise_conv`, `depthwise_bn`,
  `pointwise_conv`, `pointwise_bn`; Keras `conv_dw_N`, `conv_pw_N`, Hugging
  Face `layer.(2N-2)`, `layer.(2N-1)`. V2 (17 blocks): `expand_conv`,
  `expand_bn` (not in `block1`), `depthwise_conv`, `depthwise_bn`,
  `project_conv`, `project_bn`; torchvision `features.N`, Keras `expanded_conv`
  for `block1` and `block_(N-1)` for the others, Hugging Face `conv_stem` and
  `layer.(N-2)`.
* `conv_last`, `bn_last` (V2 only): torchvision `features.18`, Keras `Conv_1`.
* `fc`: torchvision `classifier.1`, Hugging Face `classifier`.

Weights trained in TensorFlow need `padding="tensorflow"`, `norm_epsilon=1e-3`.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import choose, require
from fer_jax.models.layers import (
  Dropout,
  ModuleDef,
  check_dropout,
  last_scale_init,
  make_layers,
)

# Padding of the 3x3 convolutions. The two differ at stride 2 only: torchvision
# pads symmetrically, TensorFlow's SAME by (0, 1) on maps of even size.
PADDINGS: dict[str, int | str] = {"torch": 1, "tensorflow": "SAME"}

# Strides of the first convolution. At 48 pixels "small" leaves feature maps of
# 3x3 at the end, where "imagenet" leaves 2x2.
STEM_STRIDES = {"imagenet": 2, "small": 1}

# Howard et al. 2017, table 1: channels and stride of each block.
V1_BLOCKS = (
  (64, 1),
  (128, 2),
  (128, 1),
  (256, 2),
  (256, 1),
  (512, 2),
  *((512, 1),) * 5,
  (1024, 2),
  (1024, 1),
)

# Sandler et al. 2018, table 2: expansion, channels, repeats, first stride.
V2_STAGES = (
  (1, 16, 1, 1),
  (6, 24, 2, 2),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)


class DepthwiseSeparableBlock(nn.Module):
  """Depthwise 3x3 convolution, then a 1x1 convolution across channels.

  Attributes:
    features: number of output channels.
    stride: of the depthwise convolution.
    conv: convolution.
    norm: batch normalization.
    padding: "torch" or "tensorflow", see `PADDINGS`.
  """

  features: int
  stride: int
  conv: ModuleDef
  norm: ModuleDef
  padding: str = "torch"

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow k"]:
    """Returns feature maps of `features` channels."""
    channels = x.shape[-1]
    x = self.conv(
      channels,
      (3, 3),
      self.stride,
      padding=PADDINGS[self.padding],
      feature_group_count=channels,
      name="depthwise_conv",
    )(x)
    x = self.norm(name="depthwise_bn", activation="relu6")(x)
    x = self.conv(self.features, (1, 1), name="pointwise_conv")(x)
    return self.norm(name="pointwise_bn", activation="relu6")(x)


class InvertedResidualBlock(nn.Module):
  """1x1 expansion, depthwise 3x3 convolution, 1x1 projection, and a shortcut.

  The output is linear: ReLU6 would lose information in few channels (Sandler
  et al. 2018, 3.2). There is a shortcut where it can be the identity, which is
  at stride 1 with as many output as input channels.

  Attributes:
    features: number of output channels.
    stride: of the depthwise convolution.
    conv: convolution.
    norm: batch normalization.
    expansion: ratio of the channels of the depthwise convolution to the input
      channels; at 1 the block has no expansion convolution.
    padding: "torch" or "tensorflow", see `PADDINGS`.
    zero_init_residual: whether a block with a shortcut starts as that shortcut
      (the scale of its last norm starts at zero).
  """

  features: int
  stride: int
  conv: ModuleDef
  norm: ModuleDef
  expansion: int = 6
  padding: str = "torch"
  zero_init_residual: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow k"]:
    """Returns feature maps of `features` channels."""
    y, expanded = x, x.shape[-1] * self.expansion
    if self.expansion != 1:
      y = self.conv(expanded, (1, 1), name="expand_conv")(y)
      y = self.norm(name="expand_bn", activation="relu6")(y)
    y = self.conv(
      expanded,
      (3, 3),
      self.stride,
      padding=PADDINGS[self.padding],
      feature_group_count=expanded,
      name="depthwise_conv",
    )(y)
    y = self.norm(name="depthwise_bn", activation="relu6")(y)
    y = self.conv(self.features, (1, 1), name="project_conv")(y)

    if self.stride != 1 or x.shape[-1] != self.features:
      return self.norm(name="project_bn")(y)
    scale_init = last_scale_init(self.zero_init_residual)
    bn = self.norm(name="project_bn", scale_init=scale_init)
    return bn(y, residual=x)  # bn(y) + x, fused


class _MobileNet(nn.Module):
  """What both versions share: options and their checks, stem and head."""

  num_classes: int
  width: float = 1.0
  stem: str = "imagenet"
  dropout: float = 0.2
  padding: str = "torch"
  norm_epsilon: float = 1e-5
  dtype: Any = jnp.float32
  axis_name: str | None = None

  def __post_init__(self) -> None:
    choose("padding", self.padding, PADDINGS)
    choose("stem", self.stem, STEM_STRIDES)
    ok = 0 < self.width < math.inf
    require(ok, "model.width", self.width, "be above 0 and finite")
    check_dropout(self.dropout)
    require(
      self.norm_epsilon > 0,
      "model.norm_epsilon",
      self.norm_epsilon,
      "be above 0",
    )
    super().__post_init__()

  def _stem(
    self, x: Float[Array, "b h w c"], conv: ModuleDef, norm: ModuleDef
  ) -> Float[Array, "b oh ow k"]:
    """Returns the first feature maps."""
    x = conv(
      make_divisible(32 * self.width),
      (3, 3),
      STEM_STRIDES[self.stem],
      padding=PADDINGS[self.padding],
      name="conv1",
    )(x.astype(self.dtype))
    return norm(name="bn1", activation="relu6")(x)

  def _head(
    self, x: Float[Array, "b h w c"], train: bool
  ) -> Float[Array, "b k"]:
    """Returns float32 logits of the last feature maps."""
    x = jnp.mean(x, axis=(1, 2)).astype(jnp.float32)
    x = Dropout(self.dropout, self.axis_name)(x, train)
    return nn.Dense(self.num_classes, name="fc")(x)


class MobileNetV1(_MobileNet):
  """MobileNet v1 on images of 32 pixels or more.

  Attributes:
    num_classes: number of classes, the size of the logits.
    width: factor of all channels, which are rounded to multiples of 8.
    stem: "imagenet" (3x3 stride 2) or "small" (3x3 stride 1).
    dropout: dropout rate before the classifier; 0.001 as in the authors' code
      and Keras.
    padding: "torch" (symmetric) or "tensorflow" (SAME), of 3x3 convolutions.
    norm_epsilon: added to BatchNorm's variances.
    dtype: dtype of the compute; parameters, statistics and logits are float32.
    axis_name: device axis over which the batch is divided, or None.
  """

  dropout: float = 0.001

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns float32 logits; if `train`, drops and updates statistics."""
    conv, norm = make_layers(
      train, self.dtype, self.axis_name, self.norm_epsilon
    )
    x = self._stem(x, conv, norm)
    for i, (channels, stride) in enumerate(V1_BLOCKS, start=1):
      x = DepthwiseSeparableBlock(
        features=make_divisible(channels * self.width),
        stride=stride,
        conv=conv,
        norm=norm,
        padding=self.padding,
        name=f"block{i}",
      )(x)
    return self._head(x, train)


class MobileNetV2(_MobileNet):
  """MobileNetV2 on images of 32 pixels or more.

  Attributes: as `MobileNetV1`. `dropout` is 0.2 as in torchvision; the last
  convolution has at least 1280 channels, also if `width` is below 1 (Sandler
  et al. 2018, 4).
  """

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns float32 logits; if `train`, drops and updates statistics."""
    conv, norm = make_layers(
      train, self.dtype, self.axis_name, self.norm_epsilon
    )
    x = self._stem(x, conv, norm)
    block = 0
    for expansion, channels, repeats, stride in V2_STAGES:
      for i in range(repeats):
        block += 1
        x = InvertedResidualBlock(
          features=make_divisible(channels * self.width),
          stride=stride if i == 0 else 1,
          conv=conv,
          norm=norm,
          expansion=expansion,
          padding=self.padding,
          name=f"block{block}",
        )(x)
    features = make_divisible(1280 * max(1.0, self.width))
    x = conv(features, (1, 1), name="conv_last")(x)
    x = norm(name="bn_last", activation="relu6")(x)
    return self._head(x, train)


def make_divisible(channels: float) -> int:
  """Rounds a number of channels to a multiple of 8, as the authors' code does.

  Args:
    channels: desired number of channels, any positive number.

  Returns:
    The nearest multiple, at least 8, or the next larger one if the nearest is
    more than 10 % below `channels`.

  >>> [make_divisible(c) for c in (3, 12, 16.8, 18, 24)]
  [8, 16, 16, 24, 24]
  """
  rounded = max(8, int(channels + 4) // 8 * 8)
  return rounded + 8 if rounded < 0.9 * channels else rounded
