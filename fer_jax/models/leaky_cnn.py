"""The small LeakyReLU network of Chang, and what it was compared with.

The paper gives the order of the layers: convolution, LeakyReLU and max pool
several times over, then dense layers with batch normalisation, LeakyReLU and
dropout. Sizes, slope and rate are ours, and options.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import choose, require
from fer_jax.ops import convolution
from fer_jax.ops.batch_norm import BatchNorm

ACTIVATIONS = ("leaky_relu", "relu")


class LeakyCNN(nn.Module):
  """Convolutions that each halve the image, and two dense layers.

  The first dense layer is as large as the last maps: a network trained at one
  image size does not take another.

  Attributes:
    num_classes: outputs.
    activation: "leaky_relu" or "relu".
    slope: of leaky_relu below zero.
    batch_norm: whether the hidden dense layer is normalised over the batch.
    conv_batch_norm: whether the convolutions are, too.
    dropout: the share of the hidden dense layer dropped in training.
    widths: channels of the 3x3 convolutions, one for each.
    dense: units of the hidden dense layer.
    dtype: of the compute; parameters, statistics and logits are float32.
    axis_name: the device axis over which BatchNorm statistics are averaged.
  """

  num_classes: int
  activation: str = "leaky_relu"
  slope: float = 0.01
  batch_norm: bool = True
  conv_batch_norm: bool = False
  dropout: float = 0.5
  widths: tuple[int, ...] = (32, 64, 128)
  dense: int = 256
  dtype: Any = jnp.float32
  axis_name: str | None = None

  def __post_init__(self) -> None:
    choose("activation", self.activation, ACTIVATIONS)
    for field in ("slope", "dropout"):
      value = getattr(self, field)
      must = "be at least 0 and less than 1"
      require(0 <= value < 1, f"model.{field}", value, must)
    ok = bool(self.widths) and all(map(_is_size, self.widths))
    must = "be whole numbers of 1 or more, one a convolution"
    require(ok, "model.widths", self.widths, must)
    must = "be a whole number of 1 or more"
    require(_is_size(self.dense), "model.dense", self.dense, must)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns float32 logits.

    With `train`, batch statistics are updated and the stream "dropout" drawn.
    """
    size, least = min(x.shape[1:3]), 2 ** len(self.widths)
    must = f"be at least {least} for a model of {len(self.widths)} max pools"
    require(size >= least, "input.image_size", size, must)
    slope = self.slope if self.activation == "leaky_relu" else 0.0
    act = functools.partial(nn.leaky_relu, negative_slope=slope)
    # He et al. 2015, equation 15: normal, by the number of inputs.
    kernel_init = nn.initializers.variance_scaling(
      2.0 / (1.0 + slope**2), "fan_in", "normal"
    )
    norm = functools.partial(
      BatchNorm,
      use_running_average=not train,
      momentum=0.9,
      epsilon=1e-5,
      dtype=self.dtype,
      axis_name=self.axis_name if train else None,
    )
    x = x.astype(self.dtype)
    for i, width in enumerate(self.widths, start=1):
      x = convolution.Conv(
        width,
        (3, 3),
        padding=1,
        use_bias=not self.conv_batch_norm,  # which has a bias of its own
        dtype=self.dtype,
        kernel_init=kernel_init,
        name=f"conv{i}",
      )(x)
      if self.conv_batch_norm:
        x = norm(name=f"conv{i}_bn")(x)
      x = convolution.max_pool(act(x), (2, 2), (2, 2))
    x = nn.Dense(
      self.dense,
      use_bias=not self.batch_norm,
      dtype=self.dtype,
      kernel_init=kernel_init,
      name="fc1",
    )(x.reshape(x.shape[0], -1))
    if self.batch_norm:
      x = norm(name="bn1")(x)
    x = nn.Dropout(self.dropout, deterministic=not train)(act(x))
    return nn.Dense(self.num_classes, name="fc2")(x.astype(jnp.float32))


def _is_size(value: Any) -> bool:
  """Whether there can be so many units."""
  return isinstance(value, int) and value >= 1
