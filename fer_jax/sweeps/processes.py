"""Several processes that do the same, and end together."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

from fer_jax.errors import UserError
from fer_jax.sweeps.plan import Plan
from fer_jax.training.runtime import startup
from fer_jax.training.runtime.signals import Interrupted, StopRequest

_POLL_SECONDS = 0.2
_MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"


def run(work: Callable[[Plan], None], plan: Plan, count: int) -> None:
  """Does something in processes of their own, and waits for all.

  Args:
    work: what each does; a function of a module.
    plan: what it is given.
    count: of processes.

  Raises:
    UserError: one failed; the others have ended first.
    Interrupted: SIGINT or SIGTERM came, and was handed on to all.
  """
  context = multiprocessing.get_context("spawn")
  failures = context.SimpleQueue()
  processes = [
    context.Process(
      target=_child, args=(work, plan.to_child(), count, failures)
    )
    for _ in range(count)
  ]
  with StopRequest() as stop_request:
    _start(processes)
    handed_on = False
    while any(process.is_alive() for process in processes):
      sentinels = [p.sentinel for p in processes if p.is_alive()]
      multiprocessing.connection.wait(sentinels, _POLL_SECONDS)
      if stop_request.signal_number and not handed_on:
        for process in processes:
          process.terminate()
        handed_on = True
  if stop_request.signal_number:
    raise Interrupted(
      "interrupted; saved: the same command goes on from there",
      stop_request.signal_number,
    )
  if not failures.empty():
    raise UserError(failures.get())
  for process in processes:
    if process.exitcode:
      raise UserError(
        f"a process ended with status {process.exitcode}, perhaps for want of"
        " memory: the same command goes on, workers=1 needs the least"
      )


def _start(processes: list[Any]) -> None:
  """Starts them deaf to Ctrl-C: theirs is the SIGTERM that is handed on."""
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


def _child(
  work: Callable[[Plan], None],
  fields: dict[str, Any],
  count: int,
  failures: Any,
) -> None:
  """What a process does."""
  threading.Thread(target=_end_with_parent, daemon=True).start()
  # A device's memory is shared out; by default each would take most of it.
  os.environ.setdefault(_MEMORY, f"{0.9 / count:.2f}")
  plan = Plan.from_child(fields)
  startup.start(plan.config.compilation_cache)
  try:
    work(plan)
  except (Interrupted, KeyboardInterrupt):
    pass
  except UserError as e:
    failures.put(str(e))
  except Exception as e:
    reason = " ".join(f"{type(e).__name__}: {e}".split())[:500]
    failures.put(f"{reason} (log.txt in the trial's folder says more)")


def _end_with_parent() -> None:
  """Ends this process as SIGTERM would, once its parent is gone."""
  parent = multiprocessing.parent_process()
  assert parent is not None
  multiprocessing.connection.wait([parent.sentinel])
  os.kill(os.getpid(), signal.SIGTERM)
