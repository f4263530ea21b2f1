"""Bit-equal results on a GPU, run after run.

Two runs of the same configuration on the same CPU are bit-equal anyway. On a
GPU, some kernels add in the order in which threads finish, and XLA chooses
between kernels by timing them.
"""

from fer_jax.training.runtime import xla_flags

# Excludes nondeterministic operations (it implies
# xla_gpu_exclude_nondeterministic_ops) and does not choose kernels by timing.
_FLAG = "xla_gpu_deterministic_ops"


def configure(deterministic: bool) -> None:
  """Requests deterministic kernels on GPUs; must be called before JAX is used.

  The user's own setting in XLA_FLAGS has precedence. On other platforms the
  flag has no effect.

  Args:
    deterministic: False leaves XLA's default.
  """
  if deterministic:
    xla_flags.set_default(_FLAG, "true")
