"""Convolution and max pooling, lowered per shape and platform.

Models use `Conv` and `max_pool` from this module; `dispatch` chooses how they
are computed. Parameters are those of `nn.Conv` on every platform, and results
agree to float32 accuracy.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
from jax import lax
from jaxtyping import Array, Float

from fer_jax.ops import dispatch, lowerings
from fer_jax.ops.dispatch import Rule
from fer_jax.ops.lowerings import Pads, Strides


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _convolve(
  x: Array, kernel: Array, strides: Strides, pads: Pads, rule: Rule
) -> Array:
  return rule.forward(x, kernel, strides, pads)


def _convolve_forward(
  x: Array, kernel: Array, strides: Strides, pads: Pads, rule: Rule
) -> tuple[Array, tuple[Array, Array]]:
  return rule.forward(x, kernel, strides, pads), (x, kernel)


def _convolve_backward(
  strides: Strides,
  pads: Pads,
  rule: Rule,
  residuals: tuple[Array, Array],
  gradient: Array,
) -> tuple[Array, Array]:
  x, kernel = residuals
  _, input_vjp = jax.vjp(
    lambda x: rule.input_gradient(x, kernel, strides, pads), x
  )
  _, kernel_vjp = jax.vjp(
    lambda kernel: rule.kernel_gradient(x, kernel, strides, pads), kernel
  )
  return input_vjp(gradient)[0], kernel_vjp(gradient)[0]


_convolve.defvjp(_convolve_forward, _convolve_backward)


def convolve(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw i k"],
  window_strides: Sequence[int] = (1, 1),
  padding: str | Sequence[tuple[int, int]] = "SAME",
  *,
  feature_group_count: int = 1,
  dimension_numbers: Any = ("NHWC", "HWIO", "NHWC"),
  **others: Any,
) -> Float[Array, "b oh ow k"]:
  """Computes a 2-D convolution, lowered for the shape and the platform.

  Takes the arguments of `lax.conv_general_dilated`, which `nn.Conv` calls.

  Args:
    x: images or feature maps.
    kernel: weights; `i` is `c // feature_group_count`.
    window_strides: of rows and of columns.
    padding: "SAME", "VALID" or (before, after) of rows and of columns.
    feature_group_count: groups of channels; `c` for a depthwise convolution.
    dimension_numbers: used by XLA's convolution, for inputs that are not 2-D.
    **others: further arguments. If any of them is set (dilation, precision),
      XLA's convolution is used.

  Returns:
    The feature maps, of x's dtype.
  """
  others = {
    name: value
    for name, value in others.items()
    if value is not None
    and not (name.endswith("_dilation") and set(value) == {1})
  }
  if others or x.ndim != 4:
    return lax.conv_general_dilated(
      x,
      kernel,
      window_strides,
      padding,
      dimension_numbers=dimension_numbers,
      feature_group_count=feature_group_count,
      **others,
    )
  strides = (window_strides[0], window_strides[1])
  if isinstance(padding, str):
    padding = lax.padtype_to_pads(
      x.shape[1:3], kernel.shape[:2], strides, padding
    )
  (top, bottom), (left, right) = padding
  pads = ((top, bottom), (left, right))
  platform = dispatch.platform()
  rule = dispatch.rule_for(x.shape, kernel.shape, strides, pads, platform)
  if rule == dispatch.XLA_ONLY:
    return lowerings.xla(x, kernel, strides, pads)
  return _convolve(x, kernel, strides, pads, rule)


# `nn.Conv` that computes with `convolve`: same parameters, same arguments.
Conv = functools.partial(nn.Conv, conv_general_dilated=convolve)


def max_pool(
  x: Float[Array, "b h w c"],
  window: tuple[int, int],
  strides: tuple[int, int],
  padding: Pads = ((0, 0), (0, 0)),
) -> Float[Array, "b oh ow c"]:
  """Computes the maximum over windows; padding counts as -inf.

  Of equal values, the first receives the gradient, on every platform.

  Args:
    x: feature maps.
    window: height and width.
    strides: of rows and of columns.
    padding: (before, after) of rows and of columns.

  Returns:
    The maxima, of x's dtype.
  """
  if dispatch.platform() == "cpu" and not dispatch.xla_only():
    return lowerings.max_pool(x, window, strides, padding)
  return nn.max_pool(x, window, strides, padding)
