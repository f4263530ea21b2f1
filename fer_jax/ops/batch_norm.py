"""Batch normalisation, with what mostly comes behind it.

On CPUs the norm, the shortcut that is added and the ReLU are one kernel of our
own. It is faster than three passes, and it keeps what comes out: XLA would
compute the end of a block again wherever it is used, from the beginnings of all
blocks before.
"""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from fer_jax.ops import convolution, cpu_norm_kernels, xla_norm

# By name: the function, and between what it lets through.
_IDENTITY = (-math.inf, math.inf)
ACTIVATIONS = {
  "none": (lambda x: x, _IDENTITY),
  "relu": (nn.relu, (0.0, math.inf)),
  "relu6": (nn.relu6, (0.0, 6.0)),
}


class BatchNorm(nn.BatchNorm):
  """`nn.BatchNorm`: the same parameters, statistics and results.

  Attributes: as `nn.BatchNorm`, and
    activation: of what comes out: "none", "relu" or "relu6".
  """

  activation: str = "none"

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... c"],
    use_running_average: bool | None = None,
    *,
    mask: Array | None = None,
    shortcut: Float[Array, "... c"] | None = None,
  ) -> Float[Array, "... c"]:
    """Normalises over all axes but the last, adds the shortcut, activates."""
    running = nn.merge_param(
      "use_running_average", self.use_running_average, use_running_average
    )
    arrays = (x,) if shortcut is None else (x, shortcut)
    kernels = convolution.use_kernels(*arrays)
    own = kernels or (convolution.on_accelerator() and not running)
    activate, clamp = ACTIVATIONS[self.activation]
    if not own or mask is not None or self.is_initializing():
      y = super().__call__(x, use_running_average, mask=mask)
      return activate(y if shortcut is None else y + shortcut)
    # All were made when the module was initialised.
    channels = (x.shape[-1],)
    scale = self.param("scale", self.scale_init, channels)
    bias = self.param("bias", self.bias_init, channels)
    means = self.variable("batch_stats", "mean", jnp.zeros, channels)
    variances = self.variable("batch_stats", "var", jnp.ones, channels)
    if running:
      factor = lax.rsqrt(variances.value + self.epsilon) * scale
      return _fixed(_How(clamp), x, shortcut, means.value, factor, bias)
    how = _How(clamp, self.epsilon, self.axis_name, kernels)
    y, *seen = _trained(how, x, shortcut, scale, bias)
    for kept, value in zip((means, variances), seen, strict=True):
      new = lax.stop_gradient(value)
      kept.value = self.momentum * kept.value + (1 - self.momentum) * new
    return y


def add_relu(
  x: Float[Array, "... c"], shortcut: Float[Array, "... c"]
) -> Float[Array, "... c"]:
  """ReLU of the sum, kept as `BatchNorm` keeps what comes out of it."""
  if not convolution.use_kernels(x, shortcut):
    return nn.relu(x + shortcut)
  nothing = jnp.zeros(x.shape[-1:])
  how = _How(ACTIVATIONS["relu"][1])
  return _fixed(how, x, shortcut, nothing, nothing + 1.0, nothing)


class _How(NamedTuple):
  """What is known while tracing."""

  clamp: cpu_norm_kernels.Clamp
  epsilon: float = 0.0
  axis_name: str | None = None
  kernels: bool = True  # of our own, for CPUs; else XLA's operations

  @property
  def passes(self) -> Any:
    """The module of the three passes."""
    return cpu_norm_kernels if self.kernels else xla_norm

  def over_devices(self, *values: Array) -> tuple[Array, ...]:
    return lax.pmean(values, self.axis_name) if self.axis_name else values


class _Saved(NamedTuple):
  """What the backward pass needs.

  Attributes:
    x: what went in.
    y: what came out; None where all of it was let through.
    adds: None where there was no shortcut, else ().
    mean, factor: by channel.
  """

  x: Array
  y: Array | None
  adds: tuple[()] | None
  mean: Array
  factor: Array


def _normalize(
  how: _How,
  x: Array,
  shortcut: Array | None,
  mean: Array,
  factor: Array,
  bias: Array,
) -> tuple[Array, _Saved]:
  y = how.passes.normalize(x, mean, factor, bias, shortcut, how.clamp)
  adds = None if shortcut is None else ()
  clamped = how.clamp != _IDENTITY
  return y, _Saved(x, y if clamped else None, adds, mean, factor)


class _Pulled(NamedTuple):
  """The gradient of the output, on its way.

  Attributes:
    g: the gradient behind the clamp, or in front of it where that was passed.
    how: with the clamp that is left to pass.
    saved: as it was given.
    total: sum over all but channels of the gradient in front of the clamp.
    products: the same of it times x - mean.
  """

  g: Array
  how: _How
  saved: _Saved
  total: Array
  products: Array

  def to_shortcut(self) -> Array | None:
    return None if self.saved.adds is None else self.g

  def to_x(self, shift: Array, slope: Array) -> Array:
    """Its own part, and shift + slope * (x - mean) by way of statistics."""
    x, y, _, mean, factor = self.saved
    out = x if self.how.clamp == _IDENTITY or y is None else y
    return self.how.passes.norm_gradient(
      self.g, out, x, mean, factor, shift, slope, self.how.clamp
    )


def _pull(how: _How, saved: _Saved, gradient: Array) -> _Pulled:
  keep = saved.adds is not None and how.clamp != _IDENTITY
  out = saved.x if saved.y is None else saved.y
  total, products, g = how.passes.norm_sums(
    gradient, out, saved.x, saved.mean, how.clamp, keep=keep
  )
  how = how._replace(clamp=_IDENTITY) if keep else how
  return _Pulled(g, how, saved, total, products)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fixed(
  how: _How,
  x: Float32[Array, "... c"],
  shortcut: Float32[Array, "... c"] | None,
  mean: Float32[Array, " c"],
  factor: Float32[Array, " c"],
  bias: Float32[Array, " c"],
) -> Float32[Array, "... c"]:
  """clamp((x - mean) * factor + bias + shortcut)."""
  return _normalize(how, x, shortcut, mean, factor, bias)[0]


def _fixed_backward(
  how: _How, saved: _Saved, gradient: Array
) -> tuple[Array | None, ...]:
  pulled = _pull(how, saved, gradient)
  nothing = jnp.zeros_like(saved.mean)
  return (
    pulled.to_x(nothing, nothing),
    pulled.to_shortcut(),
    -saved.factor * pulled.total,
    pulled.products,
    pulled.total,
  )


_fixed.defvjp(_normalize, _fixed_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _trained(
  how: _How,
  x: Float32[Array, "... c"],
  shortcut: Float32[Array, "... c"] | None,
  scale: Float32[Array, " c"],
  bias: Float32[Array, " c"],
) -> tuple[Array, Array, Array]:
  """As `_fixed` by the batch's own statistics, which come out too.

  Statistics have no gradient.
  """
  return _trained_forward(how, x, shortcut, scale, bias)[0]


def _trained_forward(
  how: _How, x: Array, shortcut: Array | None, scale: Array, bias: Array
) -> tuple[tuple[Array, Array, Array], tuple[_Saved, Array, Array]]:
  nothing = jnp.zeros_like(bias)
  sums = how.passes.norm_sums(x, x, x, nothing, _IDENTITY)[:2]
  count = x.size // x.shape[-1]
  mean, square = how.over_devices(*(total / count for total in sums))
  var = jnp.maximum(square - mean * mean, 0.0)
  by_deviation = lax.rsqrt(var + how.epsilon)
  y, saved = _normalize(how, x, shortcut, mean, by_deviation * scale, bias)
  return (y, mean, var), (saved, by_deviation, scale)


def _trained_backward(
  how: _How,
  residuals: tuple[_Saved, Array, Array],
  gradients: tuple[Array, Array, Array],
) -> tuple[Array | None, ...]:
  saved, by_deviation, scale = residuals
  pulled = _pull(how, saved, gradients[0])
  count = saved.x.size // saved.x.shape[-1]
  # Ioffe and Szegedy 2015, section 3: by way of the mean and the variance.
  shift = -saved.factor * pulled.total / count
  slope = -(by_deviation**3) * scale * pulled.products / count
  return (
    pulled.to_x(*how.over_devices(shift, slope)),
    pulled.to_shortcut(),
    pulled.products * by_deviation,
    pulled.total,
  )


_trained.defvjp(_trained_forward, _trained_backward)
