"""Chooses how an operation is computed, by its shape and the platform.

On CPU, XLA's convolutions are up to hundreds of times slower than necessary, so
each shape is lowered to matrix products (`lowerings`) or to a C++ kernel
(`cpu_kernels`), chosen separately for the output, the gradient of the input and
the gradient of the kernel. On GPU and TPU nearly all are XLA's operations.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

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
_product_dtypes: list[str] = []


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


def compute_dtype(dtype: str) -> jnp.dtype:
  """Returns the dtype of feature maps for a configuration's `dtype`.

  On CPU, where XLA emulates bfloat16, that is float32; see `product_dtype`. So
  it is on a GPU without arithmetic for bfloat16.
  """
  here = not _platforms
  if _for_cpu() or (here and lacks_bfloat16(jax.local_devices()[0])):
    return jnp.dtype("float32")
  return jnp.dtype(dtype)


def lacks_bfloat16(device: jax.Device) -> bool:
  """Returns whether a device is one of NVIDIA's without bfloat16 arithmetic.

  It begins with compute capability 8.0; before, XLA converts to float32 for
  each operation, and back.
  """
  capability = str(getattr(device, "compute_capability", ""))
  major = capability.partition(".")[0]
  return major.isdigit() and int(major) < 8


@contextlib.contextmanager
def product_dtype(dtype: str) -> Iterator[None]:
  """Traces functions whose convolutions on CPU multiply in some dtype.

  Feature maps on a CPU are float32. On processors that have instructions for
  it (`cpu_library.multiplies_bfloat16`), rounding both operands of products to
  bfloat16 makes convolutions several times as fast. Sums are in float32. Other
  processors compute in float32.

  Args:
    dtype: "bfloat16" or "float32", as in configurations.
  """
  _product_dtypes.append(dtype)
  try:
    yield
  finally:
    _product_dtypes.pop()


def use_kernels(*arrays: Array) -> bool:
  """Returns whether to compute on some arrays by the C++ CPU kernels."""
  return _for_cpu() and cpu_library.supports(*arrays)


def _for_cpu() -> bool:
  return platform() == "cpu" and not xla_only()


def on_accelerator() -> bool:
  """Returns whether to use the operations that are fastest on GPU and TPU."""
  return platform() != "cpu" and not xla_only()


def xla_only() -> bool:
  """Returns whether `use_xla` is in effect."""
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
  if kernels and _products_in_bfloat16(batch):
    return Rule.all(cpu_kernels.bfloat16_convolution)
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


def _products_in_bfloat16(batch: int) -> bool:
  """Returns whether to round the operands of products on CPU.

  Args:
    batch: of few images, most of a kernel's 32 rows would be empty.
  """
  return (
    _product_dtypes[-1:] == ["bfloat16"]
    and cpu_library.multiplies_bfloat16()
    and 2 * batch >= cpu_kernels.BFLOAT16_IMAGES
  )


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
