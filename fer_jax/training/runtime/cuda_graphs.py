"""Which kernels of a program XLA launches as CUDA graphs.

A GPU program of hundreds of short kernels is limited by their launches. XLA
groups launches into CUDA graphs, by default of its own kernels and of matrix
products, so that each of cuDNN's convolutions ends a graph. With convolutions
in it, a training step of ResNet-18 is one graph and one launch, instead of 139.
"""

from fer_jax.errors import choose
from fer_jax.training.runtime import xla_flags

_FLAG = "xla_gpu_enable_command_buffer"
# The values of XLA's flag; None leaves XLA's default. Some convolutions cannot
# be captured, which is why XLA leaves them out.
_VALUES = {
  "auto": None,
  "off": "",
  "convolutions": "+CONVOLUTION",
}


def configure(choice: str) -> None:
  """Sets what becomes CUDA graphs; must be called before JAX is used.

  The user's own setting in XLA_FLAGS has precedence. On other platforms the
  flag has no effect.

  Args:
    choice: "auto" (XLA's default), "off" (none) or "convolutions" (convolutions
      too).

  Raises:
    UserError: the choice is unknown.
  """
  value = _VALUES[choose("cuda_graphs", choice, _VALUES)]
  if value is not None:
    xla_flags.set_default(_FLAG, value)
