"""What the models share: their layers' settings, and the stems."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from fer_jax.ops import convolution
from fer_jax.ops.batch_norm import BatchNorm

STEMS = ("imagenet", "small", "small_stride2")

# He et al. 2015: normal, by the number of outputs, as torchvision.
kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def make_layers(
  train: bool, dtype: Any, axis_name: str | None, norm_epsilon: float = 1e-5
) -> tuple[Callable[..., Any], Callable[..., Any]]:
  """Makes what blocks take as `conv` and `norm`.

  Args:
    train: whether norms use and update the batch's statistics.
    dtype: of the compute.
    axis_name: the device axis over which those statistics are averaged.
    norm_epsilon: added to variances.

  Returns:
    Makers of convolutions without bias and of BatchNorms.
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
  conv: Callable[..., Any],
  norm: Callable[..., Any],
  features: int = 64,
) -> Float[Array, "b oh ow k"]:
  """The first layers, `conv1` and `bn1` of the module that calls this.

  Args:
    x: images.
    stem: "imagenet" (7x7 stride 2, then max pooling stride 2), "small" (3x3
      stride 1) or "small_stride2" (3x3 stride 2), the small ones without pool.
    conv: makes convolutions.
    norm: makes normalisations.
    features: channels of the output.
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
  """The initialiser of a block's last norm scale."""
  return nn.initializers.zeros if zero else nn.initializers.ones
