"""Layers that several models share: convolution, norm, dropout, stems."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fer_jax.errors import require
from fer_jax.ops import convolution
from fer_jax.ops.batch_norm import BatchNorm

# A module class with some fields bound, as blocks take it: given the other
# fields it returns a module, which maps feature maps to feature maps.
ModuleDef = Callable[..., Callable[..., Array]]

STEMS = ("imagenet", "small", "small_stride2")

# He et al. 2015: normal, scaled by the number of outputs, as in torchvision.
kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def make_layers(
  train: bool, dtype: Any, axis_name: str | None, norm_epsilon: float = 1e-5
) -> tuple[ModuleDef, ModuleDef]:
  """Returns the `conv` and `norm` of a network's blocks.

  Args:
    train: whether norms use and update the batch's statistics.
    dtype: dtype of the compute.
    axis_name: device axis over which those statistics are averaged, or None.
    norm_epsilon: added to variances.

  Returns:
    Convolution without bias, and BatchNorm.
  """
  conv = functools.partial(
    convolution.Conv, use_bias=False, dtype=dtype, kernel_init=kernel_init
  )
  norm = functools.partial(
    BatchNorm,
    use_running_average=not train,
    momentum=0.9,
    epsilon=norm_epsilon,
    dtype=dtype,
    axis_name=axis_name if train else None,
  )
  return conv, norm


def apply_stem(
  x: Float[Array, "b h w c"],
  stem: str,
  conv: ModuleDef,
  norm: ModuleDef,
  features: int = 64,
) -> Float[Array, "b oh ow k"]:
  """Applies the first layers, `conv1` and `bn1` of the calling module.

  Args:
    x: images.
    stem: "imagenet" (7x7 stride 2, then max pooling stride 2), "small" (3x3
      stride 1) or "small_stride2" (3x3 stride 2), the small ones without
      pooling.
    conv: convolution.
    norm: batch normalization.
    features: number of output channels.
  """
  if stem == "imagenet":
    x = conv(features, (7, 7), 2, padding=3, name="conv1")(x)
  else:
    stride = 2 if stem == "small_stride2" else 1
    x = conv(features, (3, 3), stride, padding=1, name="conv1")(x)
  x = norm(name="bn1", activation="relu")(x)
  if stem == "imagenet":
    x = convolution.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
  return x


def last_scale_init(zero: bool) -> nn.initializers.Initializer:
  """Returns the initializer of the scale of a residual block's last norm.

  Args:
    zero: whether the block starts as its shortcut (Goyal et al. 2017, 5.1).
  """
  return nn.initializers.zeros if zero else nn.initializers.ones


def check_dropout(rate: float) -> None:
  """Checks a model's dropout rate.

  Raises:
    UserError: it is not in [0, 1).
  """
  require(0 <= rate < 1, "model.dropout", rate, "be in [0, 1)")


class Dropout(nn.Module):
  """Dropout that is equal on one device and on many.

  Every device draws the mask of the global batch and applies its own part, so
  that an example's mask depends on the key and on the example's position in
  the global batch only. On one device it equals `nn.Dropout`.

  Attributes:
    rate: fraction of the inputs set to 0, in [0, 1).
    axis_name: device axis over which the global batch is divided, or None.
  """

  rate: float
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, x: Float[Array, "b ..."], train: bool
  ) -> Float[Array, "b ..."]:
    """Drops inputs if `train`, with the RNG stream "dropout"."""
    if not train or self.rate == 0:
      return x
    num_devices = lax.axis_size(self.axis_name) if self.axis_name else 1
    keep_rate = 1.0 - self.rate
    batch_size = x.shape[0]
    mask = jax.random.bernoulli(
      self.make_rng("dropout"),
      keep_rate,
      (num_devices * batch_size, *x.shape[1:]),
    )
    if self.axis_name:
      first = lax.axis_index(self.axis_name) * batch_size
      mask = lax.dynamic_slice_in_dim(mask, first, batch_size)
    return lax.select(mask, x / keep_rate, jnp.zeros_like(x))


class StochasticDepth(nn.Module):
  """Drops a residual branch of some examples, in training (Huang et al. 2016).

  The kept ones are divided by the fraction that is kept, so that nothing needs
  to be scaled in evaluation. Equal on one device and on many, as `Dropout`.

  Attributes:
    rate: fraction of the examples, in [0, 1).
    axis_name: device axis over which the global batch is divided, or None.
  """

  rate: float
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: Float[Array, "b ..."]) -> Float[Array, "b ..."]:
    """Returns the branch, 0 for the dropped examples."""
    ones = jnp.ones((x.shape[0], *[1] * (x.ndim - 1)), x.dtype)
    return x * Dropout(self.rate, self.axis_name)(ones, train=True)
