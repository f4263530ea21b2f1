"""CBAM, the convolutional block attention module (Woo et al. 2018).

Details that the paper leaves open follow its authors' code: the shared MLP has
biases; the spatial convolution has none and is followed by a batch
normalization of momentum 0.99 whose scale starts at zero, so that the spatial
map starts as 0.5 everywhere; the pooled maps are stacked as (max, mean).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from fer_jax.errors import choose, require
from fer_jax.models.layers import ModuleDef

ARRANGEMENTS = ("sequential", "parallel", "channel", "spatial")


class CBAM(nn.Module):
  """Attention over channels and positions: feature maps times two maps in 0..1.

  The maps are sown as "channel_map" [b 1 1 c] and "spatial_map" [b h w 1]:
  `apply(..., mutable=["intermediates"])` returns them.

  Attributes:
    conv: convolution.
    norm: batch normalization.
    arrangement: "sequential" (the channel map, then the spatial map of the
      weighted feature maps; the paper's choice, 4.1), "parallel" (both maps of
      the same input), "channel" or "spatial" (that map alone).
    reduction: ratio of the channels to the hidden units of the channel map's
      MLP.
    kernel_size: size of the spatial map's convolution; odd.
  """

  conv: ModuleDef
  norm: ModuleDef
  arrangement: str = "sequential"
  reduction: int = 16
  kernel_size: int = 7

  def __post_init__(self) -> None:
    choose("attention", self.arrangement, ARRANGEMENTS)
    check_sizes(self.reduction, self.kernel_size)
    super().__post_init__()

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Returns the weighted feature maps, of x's dtype."""
    if self.arrangement == "parallel":
      return x * self._channel_map(x) * self._spatial_map(x)
    if self.arrangement != "spatial":
      x = x * self._channel_map(x)
    if self.arrangement != "channel":
      x = x * self._spatial_map(x)
    return x

  def _channel_map(self, x: Float[Array, "b h w c"]) -> Float[Array, "b 1 1 c"]:
    """Returns the weights of the channels (3, equation 2)."""
    channels = x.shape[-1]
    hidden = max(channels // self.reduction, 1)
    pixels = x.reshape(x.shape[0], -1, channels)
    y = jnp.stack([jnp.mean(pixels, axis=1), _max(pixels, axis=1)], axis=1)
    y = nn.relu(nn.Dense(hidden, dtype=x.dtype, name="fc1")(y))
    y = nn.Dense(channels, dtype=x.dtype, name="fc2")(y)
    y = nn.sigmoid(jnp.sum(y, axis=1))[:, None, None]
    self.sow("intermediates", "channel_map", y)
    return y

  def _spatial_map(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w 1"]:
    """Returns the weights of the positions (3, equation 3)."""
    y = jnp.stack([_max(x, axis=3), jnp.mean(x, axis=3)], axis=3)
    size = (self.kernel_size, self.kernel_size)
    y = self.conv(1, size, padding=self.kernel_size // 2, name="conv")(y)
    y = self.norm(name="bn", momentum=0.99, scale_init=nn.initializers.zeros)(y)
    y = nn.sigmoid(y)
    self.sow("intermediates", "spatial_map", y)
    return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max(x: Array, axis: int) -> Array:
  """Computes the maximum, whose gradient goes to the first of equal values.

  The gradient of `jnp.max` compares `x` with the maximum and divides by the
  number of equal values. If XLA recomputes `x` with another rounding, which
  happens in a ResNet, that number is 0 and the gradient NaN. The index of the
  maximum always exists.
  """
  return jnp.max(x, axis=axis)


def _max_forward(x: Array, axis: int) -> tuple[Array, Array]:
  return jnp.max(x, axis=axis), x


def _max_backward(axis: int, x: Array, gradient: Array) -> tuple[Array]:
  index = jnp.argmax(x, axis=axis, keepdims=True)
  is_max = lax.broadcasted_iota(index.dtype, x.shape, axis) == index
  return (jnp.where(is_max, jnp.expand_dims(gradient, axis), 0),)


_max.defvjp(_max_forward, _max_backward)


def check_sizes(reduction: int, kernel_size: int) -> None:
  """Checks the sizes of an attention module.

  Raises:
    UserError: `reduction` is not a positive integer, or `kernel_size` not an
      odd one.
  """
  ok = isinstance(reduction, int) and reduction >= 1
  must = "be a positive integer"
  require(ok, "model.attention_reduction", reduction, must)
  ok = isinstance(kernel_size, int) and kernel_size >= 1
  ok = ok and kernel_size % 2 == 1
  must = "be a positive odd integer"
  require(ok, "model.attention_kernel_size", kernel_size, must)
