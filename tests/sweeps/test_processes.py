"""Processes of a sweep: they end together, and report how."""

import signal
import subprocess
import sys
import threading
import time

import pytest
import tiny_sweep

from fer_jax.errors import UserError
from fer_jax.sweeps import processes
from fer_jax.sweeps.space import Integer
from fer_jax.training.runtime.signals import Interrupted

SEEDS = {"seed": Integer(0, 6)}


@pytest.fixture
def plan(tmp_path):
  planned = tiny_sweep.plan(tmp_path, SEEDS)
  planned.workdir.mkdir()
  return planned


def wait_for(path):
  deadline = time.monotonic() + 120
  while not path.exists():
    assert time.monotonic() < deadline, path
    time.sleep(0.02)


def test_a_signal_is_passed_on(plan):
  def interrupt():
    wait_for(plan.workdir / "waiting")
    signal.raise_signal(signal.SIGTERM)

  thread = threading.Thread(target=interrupt)
  thread.start()
  with pytest.raises(
    Interrupted, match="rerun the command to resume"
  ) as stopped:
    processes.run(tiny_sweep.wait, plan, 1)
  thread.join()
  assert stopped.value.exit_code == 128 + signal.SIGTERM
  assert (plan.workdir / "left").exists()


def test_a_time_limit_of_a_process_is_an_interruption(plan):
  with pytest.raises(Interrupted, match="rerun the command") as stopped:
    processes.run(tiny_sweep.stop, plan, 1)
  assert stopped.value.exit_code == 128 + signal.SIGALRM


def test_a_deadline_stops_processes(plan):
  with pytest.raises(Interrupted, match="rerun the command") as stopped:
    processes.run(tiny_sweep.wait, plan, 1, deadline=time.monotonic())
  assert stopped.value.exit_code == 128 + signal.SIGALRM


def test_a_failure_is_one_line(plan):
  with pytest.raises(
    UserError, match="^ValueError: 7 trials are too many .see log"
  ):
    processes.run(tiny_sweep.fail, plan, 1)


def test_a_killed_process_is_reported(plan):
  with pytest.raises(UserError, match="a process ended with status -9"):
    processes.run(tiny_sweep.die, plan, 1)


def test_processes_end_with_the_one_that_started_them(plan, tmp_path):
  code = f"""
import pathlib, sys
sys.path[:0] = {sys.path!r}
import tiny_sweep
from fer_jax.sweeps import processes
from fer_jax.sweeps.space import Integer
plan = tiny_sweep.plan(pathlib.Path({str(tmp_path)!r}), {SEEDS!r})
processes.run(tiny_sweep.wait, plan, 1)
"""
  parent = subprocess.Popen(
    [sys.executable, "-c", code], stderr=subprocess.DEVNULL
  )
  try:
    wait_for(plan.workdir / "waiting")
  finally:
    parent.kill()
    parent.wait()
  wait_for(plan.workdir / "left")
