"""Batch normalization with a fused residual addition and activation.

A residual block ends in `relu(batch_norm(x) + residual)`. On CPU a C++ kernel
computes that in one pass over the feature maps, where XLA takes three. It also
materializes the result: XLA would fuse the end of a block into each of its
consumers and so recompute all preceding blocks for every one of them.
"""

import functools
import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Float32

from fer_jax.ops import cpu_norm_kernels, dispatch, xla_norm

# The function of each activation and the bounds to which it clamps.
_IDENTITY = (-math.inf, math.inf)
ACTIVATIONS = {
  "none": (lambda x: x, _IDENTITY),
  "relu": (nn.relu, (0.0, math.inf)),
  "relu6": (nn.relu6, (0.0, 6.0)),
}


class BatchNorm(nn.BatchNorm):
  """Computes `activation(batch_norm(x) + residual)`.

  Parameters, statistics and results equal those of `nn.BatchNorm` followed by
  the addition and the activation.

  Attributes:
    activation: "none" (default), "relu" or "relu6"; the others are those of
      `nn.BatchNorm`.
  """

  activation: str = "none"

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "... c"],
    use_running_average: bool | None = None,
    *,
    mask: Array | None = None,
    residual: Float[Array, "... c"] | None = None,
  ) -> Float[Array, "... c"]:
    """Normalizes over all axes but the last, adds the residual, activates.

    Args:
      x: feature maps.
      use_running_average: as in `nn.BatchNorm`.
      mask: as in `nn.BatchNorm`.
      residual: added to the normalized x before the activation; None for 0.

    Returns:
      An array of x's shape.
    """
    running = nn.merge_param(
      "use_running_average", self.use_running_average, use_running_average
    )
    arrays = (x,) if residual is None else (x, residual)
    kernels = dispatch.use_kernels(*arrays)
    fused = kernels or (dispatch.on_accelerator() and not running)
    activation_fn, clamp = ACTIVATIONS[self.activation]
    if not fused or mask is not None or self.is_initializing():
      y = super().__call__(x, use_running_average, mask=mask)
      return activation_fn(y if residual is None else y + residual)
    # `nn.BatchNorm` has created these at initialization.
    shape = (x.shape[-1],)
    scale = self.param("scale", self.scale_init, shape)
    bias = self.param("bias", self.bias_init, shape)
    mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
    var = self.variable("batch_stats", "var", jnp.ones, shape)
    if running:
      factor = lax.rsqrt(var.value + self.epsilon) * scale
      settings = _Settings(clamp)
      return _normalize(settings, x, residual, mean.value, factor, bias)
    settings = _Settings(clamp, self.epsilon, self.axis_name, kernels)
    y, *statistics = _batch_normalize(settings, x, residual, scale, bias)
    for variable, value in zip((mean, var), statistics, strict=True):
      new = lax.stop_gradient(value)
      old = variable.value
      variable.value = self.momentum * old + (1 - self.momentum) * new
    return y


def add_relu(
  x: Float[Array, "... c"], residual: Float[Array, "... c"]
) -> Float[Array, "... c"]:
  """Computes `relu(x + residual)`, materialized as `BatchNorm`'s output is."""
  if not dispatch.use_kernels(x, residual):
    return nn.relu(x + residual)
  zeros = jnp.zeros(x.shape[-1:])
  settings = _Settings(ACTIVATIONS["relu"][1])
  return _normalize(settings, x, residual, zeros, zeros + 1.0, zeros)


class _Settings(NamedTuple):
  """Static arguments of the functions below.

  Attributes:
    clamp: bounds of the output.
    epsilon: added to the variance.
    axis_name: device axis over which statistics are averaged, or None.
    kernels: whether to use the C++ CPU kernels, else XLA's operations.
  """

  clamp: cpu_norm_kernels.Clamp
  epsilon: float = 0.0
  axis_name: str | None = None
  kernels: bool = True

  @property
  def passes(self) -> Any:
    """The module that computes the passes over the feature maps."""
    return cpu_norm_kernels if self.kernels else xla_norm

  def mean_over_devices(self, *values: Array) -> tuple[Array, ...]:
    return lax.pmean(values, self.axis_name) if self.axis_name else values


class _Saved(NamedTuple):
  """Values saved for the backward pass.

  Attributes:
    x: the input.
    y: the output; None without an activation.
    added: () if a residual was added, else None.
    mean: subtracted from x, per channel.
    factor: multiplied with x - mean, per channel.
  """

  x: Array
  y: Array | None
  added: tuple[()] | None
  mean: Array
  factor: Array


class _PreActivation(NamedTuple):
  """The gradient before the activation, and sums of it.

  Attributes:
    gradient: before the activation if the clamp is `_IDENTITY`, else after it.
    settings: with the clamp that is still to be applied to `gradient`.
    saved: by the forward pass.
    total: sum of the gradient before the activation, per channel.
    products: sum of that gradient times x - mean, per channel.
  """

  gradient: Array
  settings: _Settings
  saved: _Saved
  total: Array
  products: Array

  def residual_gradient(self) -> Array | None:
    return None if self.saved.added is None else self.gradient

  def x_gradient(self, shift: Array, slope: Array) -> Array:
    """Returns the direct part plus shift + slope * (x - mean)."""
    x, y, _, mean, factor = self.saved
    clamp = self.settings.clamp
    output = x if clamp == _IDENTITY or y is None else y
    return self.settings.passes.norm_gradient(
      self.gradient, output, x, mean, factor, shift, slope, clamp
    )


def _differentiate_activation(
  settings: _Settings, saved: _Saved, gradient: Array
) -> _PreActivation:
  keep = saved.added is not None and settings.clamp != _IDENTITY
  output = saved.x if saved.y is None else saved.y
  total, products, gradient = settings.passes.norm_sums(
    gradient, output, saved.x, saved.mean, settings.clamp, keep=keep
  )
  if keep:
    settings = settings._replace(clamp=_IDENTITY)
  return _PreActivation(gradient, settings, saved, total, products)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _normalize(
  settings: _Settings,
  x: Float32[Array, "... c"],
  residual: Float32[Array, "... c"] | None,
  mean: Float32[Array, " c"],
  factor: Float32[Array, " c"],
  bias: Float32[Array, " c"],
) -> Float32[Array, "... c"]:
  """Returns clamp((x - mean) * factor + bias + residual)."""
  return _normalize_forward(settings, x, residual, mean, factor, bias)[0]


def _normalize_forward(
  settings: _Settings,
  x: Array,
  residual: Array | None,
  mean: Array,
  factor: Array,
  bias: Array,
) -> tuple[Array, _Saved]:
  clamp = settings.clamp
  y = settings.passes.normalize(x, mean, factor, bias, residual, clamp)
  added = None if residual is None else ()
  return y, _Saved(x, None if clamp == _IDENTITY else y, added, mean, factor)


def _normalize_backward(
  settings: _Settings, saved: _Saved, gradient: Array
) -> tuple[Array | None, ...]:
  before = _differentiate_activation(settings, saved, gradient)
  zeros = jnp.zeros_like(saved.mean)
  return (
    before.x_gradient(zeros, zeros),
    before.residual_gradient(),
    -saved.factor * before.total,
    before.products,
    before.total,
  )


_normalize.defvjp(_normalize_forward, _normalize_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_normalize(
  settings: _Settings,
  x: Float32[Array, "... c"],
  residual: Float32[Array, "... c"] | None,
  scale: Float32[Array, " c"],
  bias: Float32[Array, " c"],
) -> tuple[Array, Array, Array]:
  """Normalizes by the batch's statistics and returns those too.

  Returns:
    The output, the mean and the variance; the statistics have no gradient.
  """
  return _batch_normalize_forward(settings, x, residual, scale, bias)[0]


def _batch_normalize_forward(
  settings: _Settings,
  x: Array,
  residual: Array | None,
  scale: Array,
  bias: Array,
) -> tuple[tuple[Array, Array, Array], tuple[_Saved, Array, Array]]:
  sums = settings.passes.moments(x)
  count = x.size // x.shape[-1]
  mean, square = settings.mean_over_devices(*(total / count for total in sums))
  var = jnp.maximum(square - mean * mean, 0.0)
  inverse_std = lax.rsqrt(var + settings.epsilon)
  y, saved = _normalize_forward(
    settings, x, residual, mean, inverse_std * scale, bias
  )
  return (y, mean, var), (saved, inverse_std, scale)


def _batch_normalize_backward(
  settings: _Settings,
  residuals: tuple[_Saved, Array, Array],
  gradients: tuple[Array, Array, Array],
) -> tuple[Array | None, ...]:
  saved, inverse_std, scale = residuals
  before = _differentiate_activation(settings, saved, gradients[0])
  count = saved.x.size // saved.x.shape[-1]
  # The gradient through the mean and the variance (Ioffe and Szegedy 2015,
  # section 3).
  shift = -saved.factor * before.total / count
  slope = -(inverse_std**3) * scale * before.products / count
  return (
    before.x_gradient(*settings.mean_over_devices(shift, slope)),
    before.residual_gradient(),
    before.products * inverse_std,
    before.total,
  )


_batch_normalize.defvjp(_batch_normalize_forward, _batch_normalize_backward)
