"""Child processes that end together with the one that started them."""

import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from fer_jax.errors import UserError
from fer_jax.sweeps.plan import Plan
from fer_jax.training.runtime import startup
from fer_jax.training.runtime.signals import Interrupted, StopRequest

POLL_SECONDS = 0.2  # between looks at whether a signal was received
_MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"


def run(
  work: Callable[[Plan], None],
  plan: Plan,
  count: int,
  deadline: float = math.inf,
) -> None:
  """Runs a function in processes of their own, and waits for all.

  Args:
    work: what each process calls; a function of a module.
    plan: its argument.
    count: number of processes.
    deadline: when they are stopped, as by SIGTERM, in the time of
      `time.monotonic`.

  Raises:
    UserError: a process failed; the others have ended first.
    Interrupted: SIGINT or SIGTERM was received, and passed on to all; or the
      deadline stopped one, or a process ended so by itself.
  """
  context = multiprocessing.get_context("spawn")
  failures = context.SimpleQueue()
  processes = [
    context.Process(
      target=_child, args=(work, plan.to_child(), count, failures)
    )
    for _ in range(count)
  ]
  with StopRequest(deadline) as stop_request:
    start(processes)
    passed_on = False
    while any(process.is_alive() for process in processes):
      sentinels = [p.sentinel for p in processes if p.is_alive()]
      multiprocessing.connection.wait(sentinels, POLL_SECONDS)
      if stop_request and not passed_on:
        for process in processes:
          process.terminate()
        passed_on = True
  if not failures.empty() and not stop_request.signal_number:
    raise UserError(failures.get())
  codes = [process.exitcode or 0 for process in processes]
  caught = [code - 128 for code in codes if code > 128]  # of `Interrupted`
  signal_number = max(caught, default=0)
  if stop_request.signal_number or (passed_on and any(codes)):
    signal_number = stop_request.cause
  if signal_number:
    raise Interrupted(
      "interrupted; saved: rerun the command to resume", signal_number
    )
  for process in processes:
    if process.exitcode:
      raise UserError(
        f"a process ended with status {process.exitcode}, perhaps out of"
        " memory: rerun the command to resume, workers=1 needs the least"
      )


def start(processes: Sequence[Any]) -> None:
  """Starts processes that ignore Ctrl-C: SIGTERM is passed on to them.

  Args:
    processes: of `multiprocessing`.
  """
  try:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  except ValueError:  # Not the main thread.
    before = None
  try:
    for process in processes:
      process.start()
  finally:
    if before is not None:
      signal.signal(signal.SIGINT, before)


def prepare_child(count: int) -> None:
  """Prepares a child process, before anything else in it.

  It ends by SIGTERM with its parent, and takes its part of a device's memory,
  of which each process takes most by default.

  Args:
    count: number of processes at once.
  """
  threading.Thread(target=_end_with_parent, daemon=True).start()
  os.environ.setdefault(_MEMORY, f"{0.9 / count:.2f}")


def _child(
  work: Callable[[Plan], None],
  fields: dict[str, Any],
  count: int,
  failures: Any,
) -> None:
  """Runs in a process of its own."""
  prepare_child(count)
  plan = Plan.from_child(fields)
  config = plan.config
  startup.configure_process(config)
  try:
    work(plan)
  except Interrupted as e:
    sys.exit(e.exit_code)
  except KeyboardInterrupt:
    sys.exit(128 + signal.SIGINT)
  except UserError as e:
    failures.put(str(e))
  except Exception as e:
    reason = " ".join(f"{type(e).__name__}: {e}".split())[:500]
    failures.put(f"{reason} (see log.txt in the trial's folder)")


def _end_with_parent() -> None:
  """Ends this process by SIGTERM once its parent is gone."""
  parent = multiprocessing.parent_process()
  assert parent is not None
  multiprocessing.connection.wait([parent.sentinel])
  os.kill(os.getpid(), signal.SIGTERM)
