"""Convolution and max pooling, lowered per shape and platform.

Models use `Conv` and `max_pool` from this module. On GPU and TPU both are
XLA's operations. On CPU, XLA's convolutions are up to hundreds of times slower
than necessary, so each shape is lowered to matrix products (`lowerings`) or to
a C++ kernel (`cpu_kernels`), chosen separately for the output, the gradient of
the input and the gradient of the kernel. Parameters are those of `nn.Conv` on
every platform, and results agree to float32 accuracy.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax import lax
from jaxtyping import Array, Float

from fer_jax.ops import cpu_kernels, cpu_library, lowerings, xla_norm
from fer_jax.ops.lowerings import Pads, Strides, output_size

Lowering = Callable[[Array, Array, Strides, Pads], Array]


class Rule(NamedTuple):
  """Lowerings of a convolution and of its two gradients."""

  forward: Lowering
  input_gradient: Lowering
  kernel_gradient: Lowering

  @classmethod
  def all(cls, lowering: Lowering) -> "Rule":
    """Returns the rule with the same lowering for all three."""
    return cls(lowering, lowering, lowering)


XLA_ONLY = Rule.all(lowerings.xla)
_forced: list[Rule] = []


@contextlib.contextmanager
def use_rule(rule: Rule) -> Iterator[None]:
  """Lowers every convolution by `rule`, for tests and benchmarks."""
  _forced.append(rule)
  try:
    yield
  finally:
    _forced.pop()


def use_xla() -> contextlib.AbstractContextManager[None]:
  """Computes convolution, pooling and normalization by XLA's operations only.

  For programs that run on another platform than this process, and for tests:
  these operations are the fastest to trace and compile.
  """
  return use_rule(XLA_ONLY)


_platforms: list[str] = []


@contextlib.contextmanager
def tracing_for(platform: str) -> Iterator[None]:
  """Traces functions for a platform that may not be this machine's.

  Args:
    platform: "cpu", "gpu" or "tpu".
  """
  _platforms.append(platform)
  try:
    yield
  finally:
    _platforms.pop()


def platform() -> str:
  """Returns the platform to trace for: "cpu", "gpu" or "tpu"."""
  return _platforms[-1] if _platforms else jax.default_backend()


def use_kernels(*arrays: Array) -> bool:
  """Returns whether to compute on some arrays by the C++ CPU kernels."""
  return (
    platform() == "cpu" and not _xla_only() and cpu_library.supports(*arrays)
  )


def on_accelerator() -> bool:
  """Returns whether to use the operations that are fastest on GPU and TPU."""
  return platform() != "cpu" and not _xla_only()


def _xla_only() -> bool:
  return bool(_forced) and _forced[-1] == XLA_ONLY


def rule_for(
  image: tuple[int, ...],
  kernel: tuple[int, ...],
  strides: Strides,
  pads: Pads,
  platform: str,
) -> Rule:
  """Chooses the lowerings of one convolution.

  Args:
    image: shape NHWC.
    kernel: shape HWIO; I is 1 if the convolution is depthwise.
    strides: of rows and of columns.
    pads: (before, after), of rows and of columns.
    platform: "cpu", "gpu" or "tpu".

  Returns:
    On CPU, the fastest lowerings as measured by benchmarks/ops.py; on GPU,
    those with the fewest kernels; on TPU, XLA's operation.
  """
  if _forced:
    return _forced[-1]
  if platform == "gpu":
    return _gpu_rule(image, kernel, strides, pads)
  kh, kw, inputs, outputs = kernel
  batch, height, width, channels = image
  groups = channels // inputs
  if platform != "cpu" or (groups > 1 and not outputs == channels == groups):
    return XLA_ONLY
  if groups > 1:
    return Rule.all(cpu_kernels.depthwise)
  kernels = cpu_library.supports()
  multiple = cpu_kernels.CHANNEL_MULTIPLE
  if channels <= 4:
    # The stem: matrix products over so few channels would be slow.
    large = height * width >= 144
    if outputs % multiple == 0 and kernels:
      lowering = cpu_kernels.stem
    elif outputs == 1 and large:
      # Spatial attention, for which XLA has no fast path.
      lowering = lowerings.im2col
    else:
      lowering = lowerings.xla
    return Rule(lowering, lowerings.space_to_depth, lowering)
  kernels = kernels and inputs % multiple == outputs % multiple == 0
  if (kh, kw) == (1, 1) and pads == ((0, 0), (0, 0)):
    positions = batch * math.prod(output_size(image, kernel, strides, pads))
    if kernels and positions <= cpu_kernels.FEW_POSITIONS:
      return Rule.all(cpu_kernels.convolution)
    # XLA's matrix product is faster where both dimensions are large.
    if kernels and inputs * outputs <= 2**20:
      return Rule(
        lowerings.pointwise, lowerings.pointwise, cpu_kernels.convolution
      )
    return Rule.all(lowerings.pointwise)
  if kernels:
    if height * width < 9 and batch >= 16:
      lowering = lowerings.shift_and_add
    else:
      lowering = cpu_kernels.convolution
    return Rule(lowering, lowering, cpu_kernels.convolution)
  if height * width >= 144 and strides == (1, 1):
    return Rule(lowerings.xla, lowerings.shift_and_add, lowerings.shift_and_add)
  return Rule.all(lowerings.shift_and_add)


def _gpu_rule(
  image: tuple[int, ...],
  kernel: tuple[int, ...],
  strides: Strides,
  pads: Pads,
) -> Rule:
  """Returns cuDNN's convolution, except for small maps.

  For maps smaller than the kernel XLA exchanges the roles of image and kernel,
  and transposes operands and result: up to five kernels where a gather of
  patches and a matrix product are enough. So it does for depthwise
  convolutions and their input's gradient, which are one kernel of
  multiply-adds.
  """
  kh, kw, inputs, outputs = kernel
  positions = math.prod(output_size(image, kernel, strides, pads))
  if image[-1] == outputs and inputs == 1 < outputs:
    if image[0] * positions > xla_norm.ONE_KERNEL:
      return XLA_ONLY
    lowering = lowerings.depthwise_rounded_once
    return Rule(lowering, lowering, lowerings.xla)
  if image[-1] == inputs and positions < kh * kw:
    return Rule.all(lowerings.im2col)
  return XLA_ONLY


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
  rule = rule_for(x.shape, kernel.shape, strides, pads, platform())
  if rule == XLA_ONLY:
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
  if platform() == "cpu" and not _xla_only():
    return lowerings.max_pool(x, window, strides, padding)
  return nn.max_pool(x, window, strides, padding)
