"""Trains the runs of a study: one by one, or each in a process of its own."""

import concurrent.futures
import contextlib
import multiprocessing
import pathlib
import signal
import traceback
from collections.abc import Sequence
from typing import Any

from fer_jax import config as configs
from fer_jax.errors import UserError
from fer_jax.studies.plan import Run
from fer_jax.training import train_loop
from fer_jax.training.logging import metric_writer
from fer_jax.training.runtime import startup
from fer_jax.training.runtime.signals import Interrupted
from fer_jax.training.workdir import read_config

_LOG = "log.txt"  # output of a run in a process of its own


def train(runs: Sequence[Run], processes: int = 0) -> None:
  """Trains the runs that are not finished; interrupted ones are resumed.

  Args:
    runs: of the study.
    processes: number of processes that train at once and share the devices;
      the output of each goes to `log.txt` in the run's workdir. 0 trains one
      run after the other in this process.

  Raises:
    UserError: a run failed, or its workdir holds another configuration. With
      `processes`, the other runs are finished first.
    Interrupted: SIGINT or SIGTERM was received; what was trained is saved.
  """
  left = [run for run in runs if not is_done(run)]
  done = len(runs) - len(left)
  print(f"{len(runs)} runs, {done} finished before", flush=True)
  if processes:
    _raise_if_any(_train_in_processes(left, processes), len(left))
    return
  for i, run in enumerate(left, done + 1):
    print(f"\nrun {i} of {len(runs)}: {run}", flush=True)
    train_loop.train_and_evaluate(run.config, run.workdir)


def is_done(run: Run) -> bool:
  """Returns whether a run is finished, with the present configuration.

  Raises:
    UserError: the workdir holds a run of another configuration.
  """
  found = metric_writer.read(run.workdir)
  if not found or found[-1]["kind"] != "summary":
    return False
  try:
    before = read_config(run.workdir)
  except (OSError, ValueError) as e:
    raise UserError(
      f"{run.workdir} has no readable config.json ({e}): remove the folder, or"
      " give the study another workdir"
    ) from e
  changed = configs.differences(before, run.config)
  if changed:
    raise UserError(
      f"{run.workdir} holds a run of another configuration"
      f" ({'; '.join(changed)}): give the study another workdir"
    )
  return True


def _raise_if_any(failures: Sequence[str], num_runs: int) -> None:
  """Raises UserError if runs failed."""
  if failures:
    raise UserError(
      f"{len(failures)} of {num_runs} runs failed, the first: {failures[0]};"
      " rerun the command to try them again"
    )


def _train_in_processes(runs: Sequence[Run], processes: int) -> list[str]:
  """Trains each run in a process of its own; returns the failures."""
  failures = []
  with concurrent.futures.ProcessPoolExecutor(
    processes,
    mp_context=multiprocessing.get_context("spawn"),
    max_tasks_per_child=1,
  ) as pool:
    futures = {
      pool.submit(
        _train_in_child, configs.to_json(run.config), str(run.workdir)
      ): (run)
      for run in runs
    }
    try:
      for future in concurrent.futures.as_completed(futures):
        run, failure = futures[future], future.result()
        print(f"{run}: {failure or 'done'}", flush=True)
        if failure:
          failures.append(f"{run}: {failure}")
    except (KeyboardInterrupt, Interrupted):
      # The children received the signal too; each saves and ends.
      pool.shutdown(cancel_futures=True)
      raise Interrupted(
        "interrupted; saved: rerun the command to resume",
        signal.SIGINT,
      ) from None
  return failures


def _train_in_child(fields: dict[str, Any], workdir: str) -> str:
  """Trains in a child process; returns why it failed, or ""."""
  config = configs.from_json(fields)
  startup.configure_process(config)
  path = pathlib.Path(workdir)
  try:
    path.mkdir(parents=True, exist_ok=True)
    with (
      open(path / _LOG, "a", buffering=1) as log,
      contextlib.redirect_stdout(log),
      contextlib.redirect_stderr(log),
    ):
      train_loop.train_and_evaluate(config, path)
  except (UserError, Interrupted) as e:
    return str(e)
  except Exception as e:  # The parent prints one line; the log has the rest.
    with open(path / _LOG, "a") as log:
      traceback.print_exc(file=log)
    return f"{type(e).__name__}: {e} (see {path / _LOG})"
  return ""
