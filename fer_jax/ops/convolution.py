"""Layers whose computation is chosen per shape and platform.

Models are written with `Conv` and `max_pool` from here. On GPU and TPU both
are XLA's own operations. On CPU, XLA's convolutions are up to hundreds of
times slower than they need be, so each shape is lowered to matrix products
(see `lowerings`) or to a kernel of our own (`kernels`), separately for the
output, the input's gradient and the kernel's. Parameters are those of `nn.Conv`
in every case, so weights move between platforms; results agree to float32
accuracy.
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

from fer_jax.ops import cpu_kernels, lowerings
from fer_jax.ops.lowerings import Pads, Strides, output_size

Lowering = Callable[[Array, Array, Strides, Pads], Array]


class Rule(NamedTuple):
  """How a convolution and its two gradients are computed."""

  forward: Lowering
  input_gradient: Lowering
  kernel_gradient: Lowering

  @classmethod
  def all(cls, lowering: Lowering) -> "Rule":
    """The same lowering for all three."""
    return cls(lowering, lowering, lowering)


_forced: list[Rule] = []


@contextlib.contextmanager
def use(rule: Rule) -> Iterator[None]:
  """Traces convolutions by `rule` whatever their shape and the platform.

  For tests, benchmarks and programs for another platform; where all of the
  rule is XLA's own operation, pooling is too.
  """
  _forced.append(rule)
  try:
    yield
  finally:
    _forced.pop()


_platforms: list[str] = []


@contextlib.contextmanager
def tracing_for(platform: str) -> Iterator[None]:
  """Traces as for a platform that may not be this machine's.

  Args:
    platform: "cpu", "gpu" or "tpu".
  """
  _platforms.append(platform)
  try:
    yield
  finally:
    _platforms.pop()


def platform() -> str:
  """The platform that is traced for: "cpu", "gpu" or "tpu"."""
  return _platforms[-1] if _platforms else jax.default_backend()


def use_kernels(*arrays: Array) -> bool:
  """Whether to compute on arrays by kernels of our own; float32, on CPUs."""
  return (
    platform() == "cpu" and not _native_forced() and cpu_kernels.serve(*arrays)
  )


def on_accelerator() -> bool:
  """Whether to trace what suits GPUs and TPUs best, rather than plain Flax."""
  return platform() != "cpu" and not _native_forced()


def _native_forced() -> bool:
  return bool(_forced) and _forced[-1] == Rule.all(lowerings.native)


def rule_for(
  image: tuple[int, ...],
  kernel: tuple[int, ...],
  strides: Strides,
  pads: Pads,
  platform: str,
) -> Rule:
  """Picks the lowering of one convolution.

  Args:
    image: shape NHWC.
    kernel: shape HWIO; I is 1 when the convolution is depthwise.
    strides: rows, columns.
    pads: before and after, of rows and of columns.
    platform: "cpu", "gpu" or "tpu".

  Returns:
    A rule; measured on CPU, XLA's own operation elsewhere.
  """
  if _forced:
    return _forced[-1]
  kh, kw, inputs, outputs = kernel
  channels = image[-1]
  groups = channels // inputs
  if platform != "cpu" or (groups > 1 and not outputs == channels == groups):
    return Rule.all(lowerings.native)
  if groups > 1:
    return Rule.all(cpu_kernels.depthwise)
  wide = inputs % cpu_kernels.WIDTH == outputs % cpu_kernels.WIDTH == 0
  if (kh, kw) == (1, 1) and pads == ((0, 0), (0, 0)):
    places = math.prod(output_size(image, kernel, strides, pads))
    if wide and cpu_kernels.serve() and image[0] * places <= cpu_kernels.FEW:
      return Rule.all(cpu_kernels.convolution)
    # XLA's is the better one of matrices that are large both ways.
    if wide and cpu_kernels.serve() and inputs * outputs <= 2**20:
      return Rule(
        lowerings.pointwise, lowerings.pointwise, cpu_kernels.convolution
      )
    return Rule.all(lowerings.pointwise)
  if channels <= 4:  # a stem: products over one channel would be tiny
    large = image[1] * image[2] >= 144
    if outputs % cpu_kernels.WIDTH == 0 and cpu_kernels.serve():
      own = cpu_kernels.stem
    else:  # Attention's, of one output, has XLA on its slow path where large.
      own = lowerings.gathered if outputs == 1 and large else lowerings.native
    return Rule(own, lowerings.space_to_depth, own)
  if wide and cpu_kernels.serve():
    many_of_small = image[1] * image[2] < 9 and image[0] >= 16
    best = lowerings.shifted if many_of_small else cpu_kernels.convolution
    return Rule(best, best, cpu_kernels.convolution)
  if image[1] * image[2] >= 144 and strides == (1, 1):
    return Rule(lowerings.native, lowerings.shifted, lowerings.shifted)
  return Rule.all(lowerings.shifted)


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
  saved: tuple[Array, Array],
  gradient: Array,
) -> tuple[Array, Array]:
  x, kernel = saved
  _, to_input = jax.vjp(
    lambda x: rule.input_gradient(x, kernel, strides, pads), x
  )
  _, to_kernel = jax.vjp(
    lambda kernel: rule.kernel_gradient(x, kernel, strides, pads), kernel
  )
  return to_input(gradient)[0], to_kernel(gradient)[0]


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
  """A 2-D convolution, NHWC by HWIO, lowered for the platform.

  Args:
    x: images or feature maps.
    kernel: weights; `i` is `c // feature_group_count`.
    window_strides: rows, columns.
    padding: "SAME", "VALID" or (before, after) of rows and of columns.
    feature_group_count: groups of channels; `c` for a depthwise convolution.
    dimension_numbers: only for XLA, where the images are not 2-D.
    **others: what else `nn.Conv` passes. Where one of them is set (dilation,
      precision), the convolution is XLA's own.

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
  if rule == Rule.all(lowerings.native):
    return lowerings.native(x, kernel, strides, pads)
  return _convolve(x, kernel, strides, pads, rule)


# `nn.Conv` with the convolution above: same parameters, same arguments.
Conv = functools.partial(nn.Conv, conv_general_dilated=convolve)


def max_pool(
  x: Float[Array, "b h w c"],
  window: tuple[int, int],
  strides: tuple[int, int],
  padding: Pads = ((0, 0), (0, 0)),
) -> Float[Array, "b oh ow c"]:
  """The maximum over windows; padding never wins.

  On CPU a maximum of shifted slices, whose gradient goes to the first of equal
  values, as XLA's own does.
  """
  if platform() == "cpu" and not _native_forced():
    return lowerings.max_pool(x, window, strides, padding)
  return nn.max_pool(x, window, strides, padding)
