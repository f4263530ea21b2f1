"""Batch normalisation whose sums over rows are kernels of our own on CPUs."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from fer_jax.models import kernels, ops


class BatchNorm(nn.BatchNorm):
  """`nn.BatchNorm`: the same parameters, statistics and results.

  In training on CPUs each pass over the images that adds something up is one
  kernel: XLA takes several times as long, and one pass for every sum.
  """

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... c"],
    use_running_average: bool | None = None,
    *,
    mask: Array | None = None,
  ) -> Float[Array, "... c"]:
    """Normalises, over all axes but the last."""
    running = nn.merge_param(
      "use_running_average", self.use_running_average, use_running_average
    )
    plain = running or mask is not None or self.is_initializing()
    if plain or not ops.use_kernels(x):
      return super().__call__(x, use_running_average, mask=mask)
    channels = (x.shape[-1],)
    mean, square = _moments(x)
    if self.axis_name:
      mean, square = lax.pmean((mean, square), self.axis_name)
    var = jnp.maximum(square - mean * mean, 0.0)
    for name, seen in (("mean", mean), ("var", var)):
      # Made when the module was initialised.
      kept = self.variable("batch_stats", name, jnp.zeros, channels)
      kept.value = self.momentum * kept.value + (1 - self.momentum) * seen
    scale = self.param("scale", self.scale_init, channels)
    bias = self.param("bias", self.bias_init, channels)
    return _scale_and_shift(
      x, mean, lax.rsqrt(var + self.epsilon) * scale, bias
    )


@jax.custom_vjp
def _moments(
  x: Float32[Array, "... c"],
) -> tuple[Float32[Array, " c"], Float32[Array, " c"]]:
  """The means of x and of its square."""
  count = x.size // x.shape[-1]
  total, squares = kernels.row_sums(x, x, jnp.zeros_like(x, shape=x.shape[-1:]))
  return total / count, squares / count


def _moments_forward(x: Array) -> tuple[tuple[Array, Array], Array]:
  return _moments(x), x


def _moments_backward(x: Array, gradients: tuple[Array, Array]) -> tuple[Array]:
  count = x.size // x.shape[-1]
  of_mean, of_square = (_broadcast(g / count, x) for g in gradients)
  return (of_mean + 2.0 * of_square * x,)


_moments.defvjp(_moments_forward, _moments_backward)


@jax.custom_vjp
def _scale_and_shift(
  x: Float32[Array, "... c"],
  mean: Float32[Array, " c"],
  factor: Float32[Array, " c"],
  bias: Float32[Array, " c"],
) -> Float32[Array, "... c"]:
  """(x - mean) * factor + bias."""
  mean, factor, bias = (_broadcast(v, x) for v in (mean, factor, bias))
  return (x - mean) * factor + bias


def _scale_and_shift_forward(
  x: Array, mean: Array, factor: Array, bias: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
  return _scale_and_shift(x, mean, factor, bias), (x, mean, factor)


def _scale_and_shift_backward(
  saved: tuple[Array, Array, Array], gradient: Array
) -> tuple[Array, Array, Array, Array]:
  x, mean, factor = saved
  total, products = kernels.row_sums(gradient, x, mean)
  return gradient * _broadcast(factor, x), -factor * total, products, total


_scale_and_shift.defvjp(_scale_and_shift_forward, _scale_and_shift_backward)


def _broadcast(of_channels: Array, x: Array) -> Array:
  return of_channels.reshape((1,) * (x.ndim - 1) + of_channels.shape)
