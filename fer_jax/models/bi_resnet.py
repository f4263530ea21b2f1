"""Bi-directional residual networks (Jiang et al., 3.4).

Residual blocks (wide, narrow, wide) and inverted ones (narrow, wide, narrow)
in one network, in the order a list of blocks states. Parameter names: `conv1`,
`bn1`, `layerN_M` for repeat M of entry N of the list, then `head` or `fc`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import UserError, choose, require
from fer_jax.models.heads import JiangHead
from fer_jax.models.mobilenet import InvertedResidualBlock
from fer_jax.models.resnet import BottleneckBlock
from fer_jax.models.stems import STEMS, apply_stem, make_layers

KINDS = ("residual", "inverted")
HEADS = ("jiang", "linear")

# Kind, output channels, repeats, stride of the first.
Entry = tuple[str, int, int, int]

# Paper: the order of the blocks is given (3.4), their number is not; their
# parameters are "embedded in ResNet-50 and MobileNetV2" (4.2). So widths are
# those of the two networks at the same resolution, of which there are four as
# in ResNet-50. Repeats are ours: at 48x48 each costs half of a ResNet-50,
# or less.

# "Multiple consecutive residual blocks, then [...] inverted residual blocks".
RI: tuple[Entry, ...] = (
  ("residual", 256, 2, 1),
  ("residual", 512, 2, 2),
  ("inverted", 96, 3, 2),
  ("inverted", 160, 3, 2),
  ("inverted", 320, 1, 1),
)

# The other way round.
IR: tuple[Entry, ...] = (
  ("inverted", 24, 2, 1),
  ("inverted", 32, 3, 2),
  ("residual", 1024, 4, 2),
  ("residual", 2048, 2, 2),
)

# "First [...] the inverted residual block, then [...] the residual block.
# Looping back and forth". An inverted block has six times the channels it is
# given, so after each of ResNet-50's residual blocks it would cost more than
# they do: the widths are a quarter of ResNet-50's, and equal within a
# resolution, so that both kinds have shortcuts.
ALTERNATED: tuple[Entry, ...] = (
  ("inverted", 64, 1, 1),
  ("residual", 64, 1, 1),
  ("inverted", 64, 1, 1),
  ("residual", 64, 1, 1),
  ("inverted", 128, 1, 2),
  ("residual", 128, 1, 1),
  ("inverted", 128, 1, 1),
  ("residual", 128, 1, 1),
  ("inverted", 256, 1, 2),
  ("residual", 256, 1, 1),
  ("inverted", 256, 1, 1),
  ("residual", 256, 1, 1),
  ("inverted", 512, 1, 2),
  ("residual", 512, 1, 1),
  ("inverted", 512, 1, 1),
  ("residual", 512, 1, 1),
)

ARRANGEMENTS = {"alternated": ALTERNATED, "ri": RI, "ir": IR}


class BiResNet(nn.Module):
  """A network of residual and inverted residual blocks, 32 pixels or more.

  Attributes:
    num_classes: outputs.
    blocks: entries of kind ("residual" or "inverted"), output channels,
      repeats and the first one's stride; tuples or lists.
    stem: see `ResNet`.
    expansion: see `InvertedResidualBlock`.
    head: "jiang" (see `JiangHead`) or "linear" (one dense layer).
    dropout: of the pooled features; the Jiang head drops more, see there.
    zero_init_residual: whether blocks with a shortcut start as it.
    dtype: of the compute; parameters, statistics and logits are float32.
    axis_name: the device axis over which BatchNorm statistics are averaged.
  """

  num_classes: int
  blocks: tuple[Entry, ...] = RI
  stem: str = "imagenet"
  expansion: int = 6
  head: str = "jiang"
  dropout: float = 0.5
  zero_init_residual: bool = False
  dtype: Any = jnp.float32
  axis_name: str | None = None

  def __post_init__(self) -> None:
    self.blocks = check_blocks(self.blocks)
    choose("stem", self.stem, STEMS)
    choose("head", self.head, HEADS)
    require(
      self.expansion >= 1, "model.expansion", self.expansion, "be 1 or more"
    )
    require(
      0 <= self.dropout < 1, "model.dropout", self.dropout, "be in [0, 1)"
    )
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns float32 logits; with `train`, drops and updates statistics."""
    conv, norm = make_layers(train, self.dtype, self.axis_name)
    x = apply_stem(x.astype(self.dtype), self.stem, conv, norm)
    for n, (kind, channels, repeats, stride) in enumerate(self.blocks):
      for i in range(repeats):
        x = self._block(
          kind,
          channels,
          stride=stride if i == 0 else 1,
          conv=conv,
          norm=norm,
          zero_init_residual=self.zero_init_residual,
          name=f"layer{n + 1}_{i}",
        )(x)
    # "Finally ReLU(6) is used to activate" (3.4): inverted blocks end linear.
    x = jnp.mean(nn.relu6(x), axis=(1, 2))
    return self._head(x.astype(jnp.float32), train)

  def _block(self, kind: str, channels: int, **options: Any) -> nn.Module:
    if kind == "residual":
      features = channels // BottleneckBlock.expansion
      return BottleneckBlock(features=features, **options)
    return InvertedResidualBlock(
      features=channels, expansion=self.expansion, **options
    )

  def _head(self, x: Array, train: bool) -> Array:
    if self.head == "jiang":
      return JiangHead(
        self.num_classes,
        dropout=self.dropout,
        dtype=self.dtype,
        axis_name=self.axis_name,
        name="head",
      )(x, train)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return nn.Dense(self.num_classes, name="fc")(x)


def check_blocks(blocks: Sequence[Sequence[Any]]) -> tuple[Entry, ...]:
  """Returns a list of blocks as tuples.

  Args:
    blocks: entries of kind, output channels, repeats, stride.

  Raises:
    UserError: there is no entry, or one is wrong; the message names it.

  >>> check_blocks([["residual", 256, 3, 1]])
  (('residual', 256, 3, 1),)
  """
  if not _is_list(blocks) or not blocks:
    raise UserError(
      f"blocks={blocks!r} must be a list of (kind, channels, repeats, stride)"
    )
  for i, entry in enumerate(blocks):
    if fault := _fault(entry):
      raise UserError(f"blocks[{i}]={entry!r}: {fault}")
  return tuple((kind, *numbers) for kind, *numbers in blocks)


def _fault(entry: Any) -> str:
  """What is wrong with an entry; empty where nothing is."""
  if not _is_list(entry) or len(entry) != 4:
    return "an entry is (kind, channels, repeats, stride)"
  kind, *numbers = entry
  if kind not in KINDS:
    return f"unknown kind {kind!r}: choose one of {', '.join(sorted(KINDS))}"
  if not all(type(n) is int and n >= 1 for n in numbers):
    return "channels, repeats and stride must be whole numbers of 1 or more"
  if kind == "residual" and numbers[0] % BottleneckBlock.expansion:
    return (
      "channels of residual blocks must be a multiple of"
      f" {BottleneckBlock.expansion}"
    )
  return ""


def _is_list(value: Any) -> bool:
  return isinstance(value, list | tuple)
