"""Start and end of a process that trains together with others."""

import contextlib
import dataclasses
import os
import sys
import threading
import traceback
from collections.abc import Iterator

import jax
from jax._src import distributed

from fer_jax.errors import Diverged, Interrupted, ReportedElsewhere, UserError
from fer_jax.text_output import SafeStream
from fer_jax.training.runtime import process_group
from fer_jax.training.runtime.native_log import NativeLog

# Until processes that were started together have all connected.
INITIALIZATION_TIMEOUT = 300
_SHUTDOWN_TIMEOUT = 30  # until all have left, after a run


@dataclasses.dataclass(frozen=True)
class Processes:
  """How the processes find each other.

  Attributes:
    coordinator_address: `HOST:PORT` of process 0; None detects everything (TPU
      pods, Slurm, Open MPI, Kubernetes), as `jax.distributed.initialize` does.
      With an address nothing is detected, and a process takes all GPUs that it
      sees or those that JAX_LOCAL_DEVICE_IDS lists.
    num_processes: number of processes.
    process_id: number of this one.
    timeout: seconds in which all must have connected.
  """

  coordinator_address: str | None = None
  num_processes: int | None = None
  process_id: int | None = None
  timeout: int = INITIALIZATION_TIMEOUT

  def __post_init__(self) -> None:
    given = {
      "coordinator_address": self.coordinator_address,
      "num_processes": self.num_processes,
      "process_id": self.process_id,
    }
    missing = [name for name, value in given.items() if value is None]
    if 0 < len(missing) < len(given):
      raise UserError(
        f"{missing[0]}= is missing: use coordinator_address=HOST:PORT,"
        " num_processes=N and process_id=I, or none of them to detect them"
      )
    if self.coordinator_address is None:
      return
    host, colon, port = self.coordinator_address.rpartition(":")
    if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
      raise UserError(
        f"coordinator_address={self.coordinator_address} must be HOST:PORT"
      )
    assert self.num_processes is not None and self.process_id is not None
    if not 0 <= self.process_id < self.num_processes:
      raise UserError(
        f"process_id={self.process_id} must be at least 0 and below"
        f" num_processes={self.num_processes}"
      )


@contextlib.contextmanager
def connected(processes: Processes | None) -> Iterator[bool]:
  """Connects this process with the others, and leaves them at the end.

  Must be entered before JAX computes anything. On CPU the processes reduce
  gradients with gloo.

  Args:
    processes: how they find each other; None: there are no others.

  Yields:
    Whether this is the first process, which reports.

  Raises:
    UserError: nothing was detected, or JAX has been used before.
  """
  if processes is None:
    yield True
    return
  connecting = _Connecting(processes)
  with NativeLog(_prefix, connecting.on_fatal):
    # SIGTERM is left to the training loop; processes agree by themselves.
    jax.config.update("jax_enable_preemption_service", False)
    timer = threading.Timer(processes.timeout, connecting.give_up)
    timer.daemon = True
    timer.start()
    try:
      jax.distributed.initialize(
        processes.coordinator_address,
        processes.num_processes,
        processes.process_id,
        # Otherwise JAX would give the process one GPU in a Slurm job, and ask
        # Kubernetes for the job.
        cluster_detection_method=(
          "deactivate" if processes.coordinator_address else None
        ),
        # JAX aborts the process at its time limit: ours is to be first.
        initialization_timeout=processes.timeout + 10,
        shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT,
      )
    except (ValueError, RuntimeError) as e:
      raise UserError(_explain(e)) from e
    finally:
      timer.cancel()
    connecting.is_connected = True
    state = distributed.global_state
    try:
      yield state.process_id == 0
      jax.distributed.shutdown()
    except (Interrupted, Diverged) as e:  # All processes end this way.
      connecting.is_ending = True
      jax.distributed.shutdown()
      if state.process_id == 0:
        raise
      raise ReportedElsewhere(getattr(e, "exit_code", 1)) from e
    except UserError as e:
      connecting.is_ending = True
      if state.process_id == 0:
        raise
      name = f"process {state.process_id} of {state.num_processes}"
      raise UserError(f"{name}: {e}") from e
    except Exception:
      connecting.is_ending = True
      # Python's own end would wait for the others.
      traceback.print_exc()
      os._exit(1)


def _prefix() -> str:
  index = distributed.global_state.process_id
  return f"[process {index}] " if index else ""


class _Connecting:
  """Ends the process with one line where JAX would abort it."""

  def __init__(self, processes: Processes):
    self._processes = processes
    self.is_connected = False
    self.is_ending = False

  def on_fatal(self, line: str) -> None:
    """Handles the line with which JAX's client announces its abort."""
    if self.is_ending:
      return
    if self.is_connected:
      self._leave(process_group.coordinator_lost())
    reason = line.partition("absl::Status: ")[2].strip() or line.strip()
    self._leave(f"cannot connect to {self._coordinator()}: {reason}")

  def give_up(self) -> None:
    """Ends the process when it could not connect in time."""
    processes = self._processes
    if processes.process_id == 0:
      what = (
        f"the {processes.num_processes} processes did not all connect to"
        f" {self._coordinator()}"
      )
    else:
      what = f"cannot connect to {self._coordinator()}"
    self._leave(
      f"{what} within {processes.timeout} s"
      f" (initialization_timeout={processes.timeout}): check that all processes"
      " run, and that this address and port can be reached"
    )

  def _coordinator(self) -> str:
    address = self._processes.coordinator_address
    return f"the coordinator {address}" if address else "the coordinator"

  def _leave(self, message: str) -> None:
    stream = SafeStream(sys.stderr)
    stream.write(f"error: {message}\n")
    stream.flush()
    os._exit(1)


def _explain(error: Exception) -> str:
  reason = " ".join(str(error).split())
  if "should be defined" in reason or "must be defined" in reason:
    return (
      "distributed=True detected no TPU pod, Slurm, Open MPI or Kubernetes"
      " (which needs the package `kubernetes`): use"
      " coordinator_address=HOST:PORT, num_processes=N and process_id=I"
    )
  return f"the processes cannot be connected: {reason}"
