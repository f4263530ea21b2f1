"""Bi-directional residual networks (Jiang et al., 3.4).

Residual blocks (wide, narrow, wide) and inverted residual blocks (narrow, wide,
narrow) in one network, in the order of a list of blocks. Parameter names:
`conv1`, `bn1`, `layerN_M` for repeat M of entry N of the list, then `head` or
`fc`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import UserError, choose, require
from fer_jax.models.heads import JiangHead
from fer_jax.models.layers import (
  STEMS,
  Dropout,
  apply_stem,
  check_dropout,
  make_layers,
)
from fer_jax.models.mobilenet import InvertedResidualBlock
from fer_jax.models.resnet import BottleneckBlock

KINDS = ("residual", "inverted")
HEADS = ("jiang", "linear")

# Kind, output channels, repeats, stride of the first repeat.
Entry = tuple[str, int, int, int]

# Paper: the order of the blocks is stated (3.4), their number is not; their
# parameters are "embedded in ResNet-50 and MobileNetV2" (4.2). Therefore the
# channels are those of the two networks at the same resolution, of which there
# are four as in ResNet-50. The repeats are our choice: at 48x48 each network
# costs at most 0.57 times a ResNet-50.

# "Multiple consecutive residual blocks, then [...] inverted residual blocks".
RI: tuple[Entry, ...] = (
  ("residual", 256, 2, 1),
  ("residual", 512, 2, 2),
  ("inverted", 96, 3, 2),
  ("inverted", 160, 3, 2),
  ("inverted", 320, 1, 1),
)

# Inverted residual blocks, then residual blocks.
IR: tuple[Entry, ...] = (
  ("inverted", 24, 2, 1),
  ("inverted", 32, 3, 2),
  ("residual", 1024, 4, 2),
  ("residual", 2048, 2, 2),
)

# "First [...] the inverted residual block, then [...] the residual block.
# Looping back and forth". An inverted block expands its input to six times the
# channels, so after a residual block of ResNet-50 it would cost more than that
# block: the channels are a quarter of ResNet-50's, and equal within a
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
  """Network of residual and inverted residual blocks, 32 pixels or more.

  Attributes:
    num_classes: number of classes, the size of the logits.
    blocks: entries of kind ("residual" or "inverted"), output channels,
      repeats and stride of the first repeat; tuples or lists.
    stem: see `ResNet`.
    expansion: see `InvertedResidualBlock`.
    head: "jiang" (see `JiangHead`) or "linear" (one dense layer).
    dropout: dropout rate of the pooled features; see also `JiangHead`.
    zero_init_residual: whether blocks with a shortcut start as that shortcut.
    dtype: dtype of the compute; parameters, statistics and logits are float32.
    axis_name: device axis over which the batch is divided, or None.
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
      self.expansion >= 1, "model.expansion", self.expansion, "be at least 1"
    )
    check_dropout(self.dropout)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns float32 logits; if `train`, drops and updates statistics."""
    conv, norm = make_layers(train, self.dtype, self.axis_name)
    x = apply_stem(x.astype(self.dtype), self.stem, conv, norm)
    shared: dict[str, Any] = {
      "conv": conv,
      "norm": norm,
      "zero_init_residual": self.zero_init_residual,
    }
    for n, (kind, channels, repeats, stride) in enumerate(self.blocks, start=1):
      for i in range(repeats):
        block: BottleneckBlock | InvertedResidualBlock
        if kind == "residual":
          block = BottleneckBlock(
            features=channels // BottleneckBlock.expansion,
            stride=stride if i == 0 else 1,
            name=f"layer{n}_{i}",
            **shared,
          )
        else:
          block = InvertedResidualBlock(
            features=channels,
            stride=stride if i == 0 else 1,
            expansion=self.expansion,
            name=f"layer{n}_{i}",
            **shared,
          )
        x = block(x)
    # "Finally ReLU(6) is used to activate" (3.4): inverted blocks end linear.
    x = jnp.mean(nn.relu6(x), axis=(1, 2)).astype(jnp.float32)
    if self.head == "jiang":
      return JiangHead(
        self.num_classes,
        dropout=self.dropout,
        dtype=self.dtype,
        axis_name=self.axis_name,
        name="head",
      )(x, train)
    x = Dropout(self.dropout, self.axis_name)(x, train)
    return nn.Dense(self.num_classes, name="fc")(x)


def check_blocks(blocks: Sequence[Sequence[Any]]) -> tuple[Entry, ...]:
  """Checks a list of blocks and returns it as tuples.

  Args:
    blocks: entries of kind, output channels, repeats, stride.

  Raises:
    UserError: there is no entry, or one is invalid; the message names it.

  >>> check_blocks([["residual", 256, 3, 1]])
  (('residual', 256, 3, 1),)
  """
  if not _is_list(blocks) or not blocks:
    raise UserError(
      f"model.blocks={blocks!r} must be a list of (kind, channels, repeats,"
      " stride)"
    )
  for i, entry in enumerate(blocks):
    if problem := _problem(entry):
      raise UserError(f"model.blocks[{i}]={entry!r}: {problem}")
  return tuple((kind, *numbers) for kind, *numbers in blocks)


def _problem(entry: Any) -> str:
  """Returns why an entry is invalid, or "" if it is valid."""
  if not _is_list(entry) or len(entry) != 4:
    return "an entry is (kind, channels, repeats, stride)"
  kind, *numbers = entry
  if kind not in KINDS:
    return f"unknown kind {kind!r}: choose one of {', '.join(sorted(KINDS))}"
  if not all(type(n) is int and n >= 1 for n in numbers):
    return "channels, repeats and stride must be positive integers"
  if kind == "residual" and numbers[0] % BottleneckBlock.expansion:
    return (
      "channels of residual blocks must be a multiple of"
      f" {BottleneckBlock.expansion}"
    )
  return ""


def _is_list(value: Any) -> bool:
  return isinstance(value, list | tuple)
