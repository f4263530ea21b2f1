"""MobileNet v1 (Howard et al. 2017) and MobileNetV2 (Sandler et al. 2018).

Names of parameters, and where the reference weights have them:

* `conv1`, `bn1`: the stem. torchvision `features.0`, Keras `conv1`/`Conv1`.
* `blockN`, N from 1. v1 (13 of them): `depthwise_conv`, `depthwise_bn`,
  `pointwise_conv`, `pointwise_bn`; Keras `conv_dw_N`, `conv_pw_N`, Hugging
  Face `layer.(2N-2)`, `layer.(2N-1)`. V2 (17): `expand_conv`, `expand_bn` (not
  in `block1`), `depthwise_conv`, `depthwise_bn`, `project_conv`, `project_bn`;
  torchvision `features.N`, Keras `expanded_conv` for `block1` and
  `block_(N-1)` after it, Hugging Face `conv_stem` and `layer.(N-2)`.
* `conv_last`, `bn_last` (V2 only): torchvision `features.18`, Keras `Conv_1`.
* `fc`: torchvision `classifier.1`, Hugging Face `classifier`.

Weights trained in TensorFlow need `padding="tensorflow"`, `norm_epsilon=1e-3`.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import choose, require
from fer_jax.models.stems import last_scale_init, make_layers

# Of 3x3 convolutions. They differ at stride 2 only: torchvision's is symmetric,
# TensorFlow's SAME is (0, 1) on maps of even size.
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
  """A 3x3 convolution within each channel, then a 1x1 one across them.

  Attributes:
    features: channels that come out.
    stride: of the depthwise convolution.
    conv: makes convolutions (dtype and initialiser bound).
    norm: makes normalisations (mode and dtype bound).
    padding: a key of `PADDINGS`.
  """

  features: int
  stride: int
  conv: Callable[..., Any]
  norm: Callable[..., Any]
  padding: str = "torch"

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow k"]:
    """Returns feature maps of `features` channels."""
    x = _depthwise(self, x)
    x = self.conv(self.features, (1, 1), name="pointwise_conv")(x)
    return self.norm(name="pointwise_bn", activation="relu6")(x)


class InvertedResidualBlock(nn.Module):
  """1x1 up, 3x3 within each channel, 1x1 down, and a shortcut.

  What comes out is linear: ReLU6 would lose information in few channels
  (Sandler et al. 2018, 3.2). The shortcut is there where it can be the
  identity, at stride 1 between equal channels; nothing is projected.

  Attributes:
    features: channels that come out.
    stride: of the depthwise convolution.
    conv: makes convolutions (dtype and initialiser bound).
    norm: makes normalisations (mode and dtype bound).
    expansion: channels of the depthwise convolution by those that come in; at
      1 the block has no first convolution.
    padding: a key of `PADDINGS`.
    zero_init_residual: whether the last norm's scale starts at zero, where
      there is a shortcut, so that the block starts as its shortcut.
  """

  features: int
  stride: int
  conv: Callable[..., Any]
  norm: Callable[..., Any]
  expansion: int = 6
  padding: str = "torch"
  zero_init_residual: bool = False

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b oh ow k"]:
    """Returns feature maps of `features` channels."""
    channels = x.shape[-1]
    has_shortcut = self.stride == 1 and channels == self.features
    y = x
    if self.expansion != 1:
      y = self.conv(channels * self.expansion, (1, 1), name="expand_conv")(y)
      y = self.norm(name="expand_bn", activation="relu6")(y)
    y = _depthwise(self, y)
    y = self.conv(self.features, (1, 1), name="project_conv")(y)
    # A scale of zero without a shortcut would leave no signal at all.
    return self.norm(
      name="project_bn",
      scale_init=last_scale_init(self.zero_init_residual and has_shortcut),
    )(y, shortcut=x if has_shortcut else None)


class _MobileNet(nn.Module):
  """What both versions share: options, stem and classifier."""

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
    require(self.width > 0, "model.width", self.width, "be above 0")
    require(
      0 <= self.dropout < 1, "model.dropout", self.dropout, "be in [0, 1)"
    )
    require(
      self.norm_epsilon > 0,
      "model.norm_epsilon",
      self.norm_epsilon,
      "be above 0",
    )
    super().__post_init__()

  def _channels(self, channels: int) -> int:
    return make_divisible(channels * self.width)

  def _layers(self, train: bool) -> tuple[Any, Any]:
    return make_layers(train, self.dtype, self.axis_name, self.norm_epsilon)

  def _stem(self, x: Array, conv: Any, norm: Any) -> Array:
    padding = PADDINGS[self.padding]
    x = x.astype(self.dtype)
    stride = STEM_STRIDES[self.stem]
    x = conv(self._channels(32), (3, 3), stride, padding=padding, name="conv1")(
      x
    )
    return norm(name="bn1", activation="relu6")(x)

  def _classify(self, x: Array, train: bool) -> Array:
    x = jnp.mean(x, axis=(1, 2)).astype(jnp.float32)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return nn.Dense(self.num_classes, name="fc")(x)


class MobileNetV1(_MobileNet):
  """MobileNet v1 on images of 32 pixels or more.

  Attributes:
    num_classes: outputs.
    width: multiplies all channels, which are rounded to multiples of 8.
    stem: "imagenet" (3x3 stride 2) or "small" (3x3 stride 1).
    dropout: before the classifier; 0.001 as in the authors' code and Keras.
    padding: "torch" (symmetric) or "tensorflow" (SAME), of 3x3 convolutions.
    norm_epsilon: added to BatchNorm's variances.
    dtype: of the compute; parameters, statistics and logits are float32.
    axis_name: the device axis over which BatchNorm statistics are averaged.
  """

  dropout: float = 0.001

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns float32 logits; with `train`, batch statistics are updated."""
    conv, norm = self._layers(train)
    x = self._stem(x, conv, norm)
    for i, (channels, stride) in enumerate(V1_BLOCKS):
      x = DepthwiseSeparableBlock(
        features=self._channels(channels),
        stride=stride,
        conv=conv,
        norm=norm,
        padding=self.padding,
        name=f"block{i + 1}",
      )(x)
    return self._classify(x, train)


class MobileNetV2(_MobileNet):
  """MobileNetV2 on images of 32 pixels or more.

  Attributes: as `MobileNetV1`. `dropout` is 0.2 as in torchvision; the last
  convolution has 1280 channels below `width` 1 too (Sandler et al. 2018, 4).
  """

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns float32 logits; with `train`, batch statistics are updated."""
    conv, norm = self._layers(train)
    x = self._stem(x, conv, norm)
    block = 0
    for expansion, channels, repeats, stride in V2_STAGES:
      for i in range(repeats):
        block += 1
        x = InvertedResidualBlock(
          features=self._channels(channels),
          stride=stride if i == 0 else 1,
          conv=conv,
          norm=norm,
          expansion=expansion,
          padding=self.padding,
          name=f"block{block}",
        )(x)
    last = make_divisible(1280 * max(1.0, self.width))
    x = conv(last, (1, 1), name="conv_last")(x)
    x = norm(name="bn_last", activation="relu6")(x)
    return self._classify(x, train)


def make_divisible(channels: float, divisor: int = 8) -> int:
  """Rounds to a multiple of `divisor`, as the authors' code does.

  Args:
    channels: how many are wanted, any positive number.
    divisor: what the result is a multiple of, and at least.

  Returns:
    The nearest multiple, or the next one where that is over 10 % less.

  >>> [make_divisible(c) for c in (3, 12, 16.8, 18, 24)]
  [8, 16, 16, 24, 24]
  """
  rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
  return rounded + divisor if rounded < 0.9 * channels else rounded


def _depthwise(block: Any, x: Array) -> Array:
  """The 3x3 convolution within each channel of a block, normed, ReLU6."""
  x = block.conv(
    x.shape[-1],
    (3, 3),
    block.stride,
    padding=PADDINGS[block.padding],
    feature_group_count=x.shape[-1],
    name="depthwise_conv",
  )(x)
  return block.norm(name="depthwise_bn", activation="relu6")(x)
