"""Small LeakyReLU network of Chang, and the variants it was compared with.

The paper states the order of the layers: repeated convolution, LeakyReLU and
max pooling, then dense layers with batch normalization, LeakyReLU and dropout.
Sizes, slope and dropout rate are our choice, and options.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from fer_jax.errors import choose, require
from fer_jax.models.layers import Dropout, make_layers
from fer_jax.ops import convolution

ACTIVATIONS = ("leaky_relu", "relu")


class LeakyCNN(nn.Module):
  """Convolutions that each halve the image, and two dense layers.

  The first dense layer depends on the image size: a network trained at one
  size cannot be applied at another.

  Attributes:
    num_classes: number of classes, the size of the logits.
    activation: "leaky_relu" or "relu".
    slope: slope of the LeakyReLU for negative inputs.
    batch_norm: whether to apply BatchNorm after the hidden dense layer.
    conv_batch_norm: whether to apply BatchNorm after each convolution.
    dropout: dropout rate of the hidden dense layer.
    widths: channels of the 3x3 convolutions, one value per convolution.
    dense: outputs of the hidden dense layer.
    dtype: dtype of the compute; parameters, statistics and logits are float32.
    axis_name: device axis over which the batch is divided, or None.
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
      require(0 <= value < 1, f"model.{field}", value, "be in [0, 1)")
    ok = bool(self.widths) and all(map(_is_size, self.widths))
    must = "be positive integers, one per convolution"
    require(ok, "model.widths", self.widths, must)
    must = "be a positive integer"
    require(_is_size(self.dense), "model.dense", self.dense, must)
    super().__post_init__()

  @nn.compact
  def __call__(
    self, x: Float[Array, "b h w c"], train: bool = False
  ) -> Float[Array, "b k"]:
    """Returns float32 logits.

    If `train`, updates the batch statistics and uses the RNG stream "dropout".
    """
    size, min_size = min(x.shape[1:3]), 2 ** len(self.widths)
    must = (
      f"be at least {min_size}: the model halves it {len(self.widths)} times"
    )
    require(size >= min_size, "input.image_size", size, must)
    slope = self.slope if self.activation == "leaky_relu" else 0.0
    act = functools.partial(nn.leaky_relu, negative_slope=slope)
    # He et al. 2015, equation 15: normal, scaled by the number of inputs.
    kernel_init = nn.initializers.variance_scaling(
      2.0 / (1.0 + slope**2), "fan_in", "normal"
    )
    _, norm = make_layers(train, self.dtype, self.axis_name)
    x = x.astype(self.dtype)
    for i, width in enumerate(self.widths, start=1):
      x = convolution.Conv(
        width,
        (3, 3),
        padding=1,
        use_bias=not self.conv_batch_norm,  # BatchNorm has a bias
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
    x = Dropout(self.dropout, self.axis_name)(act(x), train)
    return nn.Dense(self.num_classes, name="fc2")(x.astype(jnp.float32))


def _is_size(value: Any) -> bool:
  """Returns whether a value is a valid number of units."""
  return isinstance(value, int) and value >= 1
