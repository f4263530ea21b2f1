"""The flags of training on several processes."""

from typing import TYPE_CHECKING

from absl import flags

if TYPE_CHECKING:
  from fer_jax.training.runtime.distributed import Processes


def define_flags() -> None:
  """Defines --distributed and how the processes find each other."""
  flags.DEFINE_bool(
    "distributed",
    False,
    "Train with several processes: on TPU pods, Slurm, Open MPI and Kubernetes"
    " they are detected.",
  )
  flags.DEFINE_string(
    "coordinator_address",
    None,
    "Elsewhere: HOST:PORT of process 0, a port that is free there.",
  )
  flags.DEFINE_integer("num_processes", None, "Elsewhere: how many processes.")
  flags.DEFINE_integer(
    "process_id", None, "Elsewhere: which one this is, from 0."
  )
  flags.DEFINE_integer(
    "initialization_timeout",
    300,
    "Seconds in which all processes must have connected.",
    lower_bound=1,
  )


def read_flags() -> "Processes | None":
  """Returns how the processes find each other; None for a single process.

  Raises:
    UserError: only some of the flags are given.
  """
  given = flags.FLAGS
  by_hand = (given.coordinator_address, given.num_processes, given.process_id)
  if not given.distributed and by_hand == (None, None, None):
    return None
  from fer_jax.training.runtime.distributed import Processes

  return Processes(*by_hand, timeout=given.initialization_timeout)
