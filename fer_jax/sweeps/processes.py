"""Child processes that each train trials of a sweep."""

import math
from collections.abc import Callable
from typing import Any

from fer_jax.errors import UserError
from fer_jax.sweeps.plan import Plan
from fer_jax.training.runtime import child_processes, startup


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
    Interrupted: as `child_processes.run_all` raises it.
  """
  calls = [(work, plan.to_child())] * count
  for ended in child_processes.run_all(_work, calls, count, deadline):
    if ended.exit_code:
      raise UserError(
        f"{ended.failure}: rerun the command to resume, workers=1 needs the"
        " least"
      )
    if ended.failure and not ended.signal_number:
      raise UserError(ended.failure)


def _work(work: Callable[[Plan], None], fields: dict[str, Any]) -> None:
  """Runs in a process of its own."""
  plan = Plan.from_child(fields)
  startup.configure_process(plan.config)
  try:
    work(plan)
  except UserError:
    raise
  except Exception as e:
    reason = " ".join(f"{type(e).__name__}: {e}".split())[:500]
    raise UserError(f"{reason} (see log.txt in the trial's folder)") from e
