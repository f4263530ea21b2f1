"""Trains the runs of a study: one by one, or each in a process of its own."""

import contextlib
import math
import pathlib
import traceback
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.errors import UserError
from fer_jax.studies import same_data
from fer_jax.studies.plan import Run
from fer_jax.text_output import counted
from fer_jax.training import train_loop
from fer_jax.training.logging import metric_writer
from fer_jax.training.runtime import child_processes, startup
from fer_jax.training.runtime.signals import check_deadline, deadline_after
from fer_jax.training.workdir import read_config

_LOG = "log.txt"  # output of a run in a process of its own


def train(
  runs: Sequence[Run], processes: int = 0, deadline: float = math.inf
) -> None:
  """Trains the runs that are not finished; interrupted ones are resumed.

  Args:
    runs: of the study.
    processes: number of processes that train at once and share the devices;
      the output of each goes to `log.txt` in the run's workdir. 0 trains one
      run after the other in this process.
    deadline: when to stop, as `first_deadline` returns it.

  Raises:
    UserError: a run failed, its workdir holds another configuration, or runs
      have other data than others. With `processes`, the other runs are finished
      first.
    Interrupted: SIGINT or SIGTERM was received, or the deadline is reached;
      what was trained is saved.
  """
  left = [run for run in runs if not is_done(run.workdir, run.config)]
  done = len(runs) - len(left)
  print(f"{counted(len(runs), 'run')}, {done} finished before", flush=True)
  same_data.check(runs, left)
  if processes:
    failures = _train_in_processes(left, processes, deadline)
    _raise_if_any(failures, len(left))
  else:
    for i, run in enumerate(left, done + 1):
      check_deadline(deadline)
      print(f"\nrun {i} of {len(runs)}: {run}", flush=True)
      train_loop.train_and_evaluate(run.config, run.workdir, deadline=deadline)
  same_data.check(runs)  # They may have changed meanwhile.


def first_deadline(runs: Sequence[ConfigDict]) -> float:
  """Returns when the shortest `max_minutes` of several runs ends.

  Args:
    runs: the configurations of runs whose command starts now.
  """
  deadlines = [deadline_after(config.max_minutes) for config in runs]
  return min(deadlines, default=math.inf)


def is_done(workdir: pathlib.Path, config: ConfigDict) -> bool:
  """Returns whether a workdir holds the finished run of a configuration.

  Raises:
    UserError: it holds a finished run of another configuration.
  """
  found = metric_writer.read(workdir)
  if not found or found[-1]["kind"] != "summary":
    return False
  check_same(workdir, config)
  return True


def check_same(workdir: pathlib.Path, config: ConfigDict) -> None:
  """Checks that a workdir holds a run of a configuration.

  Raises:
    UserError: it is one of another configuration.
  """
  try:
    before = read_config(workdir)
  except (OSError, ValueError) as e:
    raise UserError(
      f"{workdir} has no readable config.json ({e}): remove the folder, or use"
      " another workdir"
    ) from e
  changed = configs.differences(before, config)
  if changed:
    raise UserError(
      f"{workdir} holds a run of another configuration ({'; '.join(changed)}):"
      " use another workdir, or move the folder away"
    )


def _raise_if_any(failures: Sequence[str], num_runs: int) -> None:
  """Raises UserError if runs failed."""
  if failures:
    raise UserError(
      f"{len(failures)} of {num_runs} runs failed, the first: {failures[0]};"
      " rerun the command to try them again"
    )


def _train_in_processes(
  runs: Sequence[Run], count: int, deadline: float
) -> list[str]:
  """Trains each run in a process of its own; returns the failures.

  Args:
    runs: what to train.
    count: number of processes at once.
    deadline: when they are stopped, as by SIGTERM.
  """

  def tell(index: int, ended: child_processes.Ended) -> None:
    print(f"{runs[index]}: {ended.failure or 'done'}", flush=True)

  calls = [(configs.to_json(run.config), str(run.workdir)) for run in runs]
  found = child_processes.run_all(_train, calls, count, deadline, tell)
  return [
    f"{run}: {ended.failure}"
    for run, ended in zip(runs, found, strict=True)
    if ended.failure
  ]


def _train(fields: dict[str, Any], workdir: str) -> None:
  """Trains in a child process, with all output in a log."""
  config = configs.from_json(fields)
  startup.configure_process(config)
  path = pathlib.Path(workdir, _LOG)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
      open(path, "a", buffering=1) as log,
      contextlib.redirect_stdout(log),
      contextlib.redirect_stderr(log),
    ):
      train_loop.train_and_evaluate(config, workdir)
  except UserError:
    raise
  except Exception as e:  # The parent prints one line; the log has the rest.
    with contextlib.suppress(OSError), open(path, "a") as log:
      traceback.print_exc(file=log)
    raise UserError(f"{type(e).__name__}: {e} (see {path})") from e
