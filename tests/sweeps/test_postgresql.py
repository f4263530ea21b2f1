"""Sweeps over machines, with trials in a real PostgreSQL database."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import postgresql_server
import pytest
import tiny_sweep

pytest.importorskip("psycopg", reason="needs the extra `postgresql`")

from fer_jax.errors import UserError
from fer_jax.sweeps import storage, trials
from fer_jax.sweeps.space import Integer
from fer_jax.sweeps.trial_store import HandedOn, TrialStore

SEEDS = {"seed": Integer(0, 3)}
# A worker as on a machine that does not share the workdir; ARGUMENTS: folder,
# URL. Heartbeats are a second apart, so that the test need not wait.
WORKER = f"""
import pathlib, sys
sys.path[:0] = {sys.path!r}
import tiny_sweep
from fer_jax.sweeps import storage, worker
from fer_jax.sweeps.space import Integer
storage.HEARTBEAT_SECONDS, storage.GRACE_SECONDS = 1, 3
folder, url = pathlib.Path(sys.argv[1]), sys.argv[2]
plan = tiny_sweep.plan(folder, {SEEDS!r}, storage=url)
with plan.config.unlocked():
  plan.config.num_epochs = 40
worker.work(plan)
"""


@pytest.fixture(scope="module")
def server():
  programs = postgresql_server.find_programs()
  if programs is None:
    pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
  started = postgresql_server.Server(programs)
  yield started
  started.close()


@pytest.fixture
def fast_heartbeats(monkeypatch):
  monkeypatch.setattr(storage, "HEARTBEAT_SECONDS", 1)
  monkeypatch.setattr(storage, "GRACE_SECONDS", 3)


def open_store(server, folder: pathlib.Path, name: str) -> TrialStore:
  """A sweep of a name, in a workdir of its own."""
  plan = tiny_sweep.plan(folder, SEEDS, storage=server.url)
  object.__setattr__(plan, "workdir", folder / name)
  return TrialStore(plan)


def test_machines_never_try_the_same_point(server, tmp_path):
  here, there = (open_store(server, tmp_path / n, "points") for n in "ab")
  claims = [store.claim() for store in (here, there, there, here)]
  points = [claim.trial.point["seed"] for claim in claims if claim]
  assert sorted(points) == [0, 1, 2, 3]
  assert here.claim() is None and there.claim() is None
  here.close()
  there.close()


def test_a_silent_workers_trial_is_handed_on(server, tmp_path, fast_heartbeats):
  here, there = (open_store(server, tmp_path / n, "silent") for n in "ab")
  silent, alive = here.claim(), here.claim()
  assert silent and alive
  with here.heartbeats(silent):
    here.report(silent, 1, 2.5)
  with here.heartbeats(alive):
    time.sleep(5)
    handed_on = there.claim()
  assert handed_on and handed_on.trial.number == silent.trial.number
  assert handed_on.trial.point == silent.trial.point
  assert handed_on.trial.losses == {1: 2.5}
  with pytest.raises(HandedOn):
    here.report(silent, 2, 2.0)
  assert [t.state for t in there.trials()] == [trials.RUNNING] * 2
  here.close()
  there.close()


def test_a_database_that_stays_away_is_a_one_line_error(
  server, tmp_path, monkeypatch
):
  store = open_store(server, tmp_path, "away")
  monkeypatch.setattr(storage, "OUTAGE_SECONDS", 1)
  server.stop()
  try:
    with pytest.raises(UserError, match="has not answered for 1 s") as raised:
      store.claim()
  finally:
    server.start()
  assert "\n" not in str(raised.value)
  assert store.claim()  # The next call finds the database again.
  store.close()


def start_worker(folder: pathlib.Path, url: str) -> subprocess.Popen:
  environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  return subprocess.Popen(
    [sys.executable, "-c", WORKER, str(folder), url],
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def wait_for_epoch(store: TrialStore, process: subprocess.Popen) -> None:
  """Waits until a running trial has an epoch that it had not before."""

  def epochs():
    return sum(len(trial.losses) for trial in store.trials())

  before, deadline = epochs(), time.monotonic() + 300
  while epochs() == before:
    assert process.poll() is None, process.communicate()[0]
    assert time.monotonic() < deadline
    time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_workers_trial_goes_to_another_across_a_restart(
  server, tmp_path
):
  plan = tiny_sweep.plan(tmp_path / "watch", SEEDS, storage=server.url)
  with plan.config.unlocked():
    plan.config.num_epochs = 40
  store = TrialStore(plan)
  first = start_worker(tmp_path / "first", server.url)
  wait_for_epoch(store, first)
  first.kill()  # SIGKILL
  first.communicate()
  assert first.returncode == -signal.SIGKILL
  (killed,) = store.trials()
  assert killed.state == trials.RUNNING and killed.losses
  time.sleep(4)  # Longer than the grace period.

  second = start_worker(tmp_path / "second", server.url)
  wait_for_epoch(store, second)
  server.stop()
  time.sleep(1)
  server.start()
  out, _ = second.communicate(timeout=500)
  assert second.returncode == 0, out
  found = store.trials()
  assert [trial.state for trial in found] == [trials.COMPLETE] * 4
  assert sorted(trial.point["seed"] for trial in found) == [0, 1, 2, 3]
  assert found[0].point == killed.point
  assert all(list(trial.losses) == list(range(1, 41)) for trial in found)
  assert len(store.study.get_trials()) == 5  # One was handed on, once.
  assert "trial 0 (1 of 4) resumes after epoch" in out
  store.close()
