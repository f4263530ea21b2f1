"""A whole sweep: checked, trained and reported."""

import contextlib
import functools

from fer_jax.errors import UserError
from fer_jax.sweeps import best_config, plan, processes, sweep_report
from fer_jax.sweeps.trial_store import TrialStore
from fer_jax.sweeps.trials import FAILED, RUNNING, best_trial
from fer_jax.sweeps.worker import work


def search(planned: plan.Plan, workers: int = 1) -> None:
  """Trains what is left of a sweep and writes its report.

  Args:
    planned: the sweep.
    workers: 1 trains in this process; more, each in a process of its own,
      which share the devices.

  Raises:
    UserError: bad input, or every trial failed.
    Interrupted: SIGINT or SIGTERM was received; what was trained is saved.
  """
  with contextlib.closing(TrialStore(planned)) as store:
    print(_opening(store), flush=True)
    if _is_anything_left(store):
      if workers == 1:
        plan.check_experiments(planned)
        work(planned)
      else:  # This process leaves the devices to the others.
        processes.run(plan.check_experiments, planned, 1)
        train = functools.partial(work, log_to_file=True)
        processes.run(train, planned, workers)
    finish(store)


def finish(store: TrialStore) -> None:
  """Writes the report and prints the table.

  Raises:
    UserError: every trial failed.
  """
  planned, trials = store.plan, store.trials()
  failed = [trial for trial in trials if trial.state == FAILED]
  if trials and len(failed) == len(trials):
    raise UserError(
      f"all {len(trials)} trials failed, the first: {failed[0].reason}"
    )
  folder = planned.workdir / "report"
  page = sweep_report.write(planned, trials, folder)
  print("\n" + (folder / "trials.md").read_text())
  print(f"wrote {page} with its plots and tables")
  if best_trial(trials, planned.sign):
    command = best_config.command_of(planned, folder / best_config.NAME)
    print(f"train the best: {command}")


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
