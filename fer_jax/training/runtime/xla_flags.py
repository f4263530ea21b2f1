"""Flags of XLA, which it reads from the environment when JAX starts.

The user's own settings in XLA_FLAGS have precedence. The flags that are set
here have no effect on platforms other than GPUs.
"""

import os

from absl import logging

from fer_jax.errors import choose

# The flag's values; None leaves XLA's default. Some convolutions cannot be
# captured, which is why XLA leaves them out.
_COMMAND_BUFFERS = {"auto": None, "off": "", "convolutions": "+CONVOLUTION"}


def configure_cuda_graphs(choice: str) -> None:
  """Sets what becomes CUDA graphs; must be called before JAX is used.

  A GPU program of hundreds of short kernels is limited by their launches. XLA
  groups launches into CUDA graphs, by default of its own kernels and of matrix
  products, so that each of cuDNN's convolutions ends a graph. With convolutions
  in it, a training step of ResNet-18 is one graph and one launch, instead of
  139.

  Args:
    choice: "auto" (XLA's default), "off" (none) or "convolutions" (convolutions
      too).

  Raises:
    UserError: the choice is unknown.
  """
  value = _COMMAND_BUFFERS[choose("cuda_graphs", choice, _COMMAND_BUFFERS)]
  if value is not None:
    set_default("xla_gpu_enable_command_buffer", value)


def request_determinism() -> None:
  """Requests deterministic kernels on GPUs; must be called before JAX is used.

  Two runs of the same configuration on the same CPU are bit-equal anyway. On a
  GPU, some kernels add in the order in which threads finish, and XLA chooses
  between kernels by timing them. The flag excludes nondeterministic operations
  (it implies xla_gpu_exclude_nondeterministic_ops) and does not choose kernels
  by timing.
  """
  set_default("xla_gpu_deterministic_ops", "true")


def set_default(name: str, value: str) -> None:
  """Sets a flag, unless the user's XLA_FLAGS has it; before JAX is used.

  Where XLA_FLAGS names a file of flags, it is left alone, with a warning.

  Args:
    name: without dashes.
    value: as the flag takes it.
  """
  flags = os.environ.get("XLA_FLAGS", "").strip()
  if flags and not flags.startswith("-"):
    logging.warning(
      "XLA_FLAGS=%s names a file: --%s=%s is used only if the file has it",
      flags,
      name,
      value,
    )
    return
  names = {flag.lstrip("-").partition("=")[0] for flag in flags.split()}
  if name not in names:
    os.environ["XLA_FLAGS"] = f"{flags} --{name}={value}".strip()
