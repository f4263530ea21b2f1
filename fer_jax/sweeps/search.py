"""A whole sweep: checked, trained, reported."""

import contextlib
import functools

from fer_jax.errors import UserError
from fer_jax.sweeps import best_config, plan, processes, sweep_report, trials
from fer_jax.sweeps.trial_store import Ledger
from fer_jax.sweeps.worker import work


def search(planned: plan.Plan, workers: int = 1) -> None:
  """Trains what is left of a sweep and writes its report.

  Args:
    planned: what to do.
    workers: 1 trains in this process; more, each in a process of its own.
      They share the devices.

  Raises:
    UserError: something is wrong, or every trial failed.
    Interrupted: SIGINT or SIGTERM came; what was trained is saved.
  """
  with contextlib.closing(Ledger(planned)) as ledger:
    print(_opening(ledger), flush=True)
    if _is_anything_left(ledger):
      if workers == 1:
        plan.try_out(planned)
        work(planned)
      else:  # This process leaves the devices to the others.
        processes.run(plan.try_out, planned, 1)
        processes.run(functools.partial(work, apart=True), planned, workers)
    finish(ledger)


def finish(ledger: Ledger) -> None:
  """Writes the report and says what came out.

  Raises:
    UserError: every trial failed.
  """
  planned, found = ledger.plan, ledger.trials()
  failed = [trial for trial in found if trial.state == trials.FAILED]
  if found and len(failed) == len(found):
    raise UserError(
      f"all {len(found)} trials failed, the first: {failed[0].reason}"
    )
  folder = planned.workdir / "report"
  page = sweep_report.write(ledger, folder)
  print("\n" + (folder / "trials.md").read_text())
  print(f"wrote {page} and what it shows")
  if trials.best(found, planned.sign):
    command = best_config.command_of(planned, folder / best_config.NAME)
    print(f"train the best: {command}")


def _opening(ledger: Ledger) -> str:
  """Says what is searched, and how far it is."""
  planned, found = ledger.plan, ledger.trials()
  lines = [
    f"{planned.metric.replace('_', ' ')} by {planned.sampler}, pruner"
    f" {planned.pruner}, {planned.goal} trials in {planned.workdir}"
  ]
  lines += [f"  {f}: {v}" for f, v in planned.space.describe().items()]
  if found:
    ended = sum(trial.state != trials.RUNNING for trial in found)
    lines.append(f"{ended} trials ended before, {len(found) - ended} begun")
  return "\n".join(lines)


def _is_anything_left(ledger: Ledger) -> bool:
  found = ledger.trials()
  running = any(trial.state == trials.RUNNING for trial in found)
  return running or len(found) < ledger.plan.goal
