"""A whole sweep: checked, trained and reported."""

import contextlib
import functools
import pathlib

from fer_jax.errors import UserError
from fer_jax.evaluation import html_page
from fer_jax.sweeps import plan, processes, sweep_report
from fer_jax.sweeps.trial_store import TrialStore
from fer_jax.sweeps.trials import FAILED, RUNNING, Trial
from fer_jax.sweeps.worker import work
from fer_jax.training.runtime.signals import deadline_after

_REPORT = "report"  # folder in the sweep's workdir


def search(
  planned: plan.Plan, workers: int = 1
) -> tuple[list[Trial], pathlib.Path]:
  """Trains what is left of a sweep and writes its report.

  Args:
    planned: the sweep.
    workers: 1 trains in this process; more, each in a process of its own,
      which share the devices.

  Returns:
    All trials, and the page of the report.

  Raises:
    UserError: bad input, data that have changed, or every trial failed.
    Interrupted: SIGINT or SIGTERM was received, or `max_minutes` are over; what
      was trained is saved.
  """
  deadline = deadline_after(planned.max_minutes)
  with contextlib.closing(TrialStore(planned)) as store:
    report = planned.workdir / _REPORT
    html_page.report_folder(report, sweep_report.KIND).check()
    print(_opening(store), flush=True)
    if _is_anything_left(store):
      if workers == 1:
        plan.check_experiments(planned)
        work(planned, deadline=deadline)
      else:  # This process leaves the devices to the others.
        processes.run(plan.check_experiments, planned, 1, deadline)
        train = functools.partial(work, log_to_file=True)
        processes.run(train, planned, workers, deadline)
    return finish(store)


def finish(store: TrialStore) -> tuple[list[Trial], pathlib.Path]:
  """Writes the report.

  Returns:
    All trials, and the page of the report.

  Raises:
    UserError: every trial failed.
  """
  planned, trials = store.plan, store.trials()
  failed = [trial for trial in trials if trial.state == FAILED]
  if trials and len(failed) == len(trials):
    raise UserError(
      f"all {len(trials)} trials failed, the first: {failed[0].reason}"
    )
  folder = planned.workdir / _REPORT
  return trials, sweep_report.write(planned, trials, folder)


def _opening(store: TrialStore) -> str:
  """Returns lines on what is searched, and on what was done before."""
  planned, trials = store.plan, store.trials()
  lines = [
    f"{planned.metric.replace('_', ' ')} by {planned.sampler}, pruner"
    f" {planned.pruner}, {planned.goal} trials in {planned.workdir}"
  ]
  lines += [f"  {f}: {v}" for f, v in planned.space.describe().items()]
  if trials:
    ended = sum(trial.state != RUNNING for trial in trials)
    lines.append(
      f"{ended} trials finished before, {len(trials) - ended} unfinished"
    )
  return "\n".join(lines)


def _is_anything_left(store: TrialStore) -> bool:
  trials = store.trials()
  running = any(trial.state == RUNNING for trial in trials)
  return running or len(trials) < store.plan.goal
