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
    "Train on several processes or machines.",
  )
  flags.DEFINE_string(
    "coordinator_address",
    None,
    "If not detected: HOST:PORT of process 0.",
  )
  flags.DEFINE_integer(
    "num_processes", None, "If not detected: how many there are."
  )
  flags.DEFINE_integer("process_id", None, "If not detected: this one, from 0.")
  flags.DEFINE_integer(
    "initialization_timeout",
    300,
    "Seconds for all of them to connect.",
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
