"""Runs of a study in processes: they end together, and report how."""

import multiprocessing
import signal
import threading
import types

import light_children
import pytest
from ml_collections import ConfigDict
from waiting import wait_until

from fer_jax.errors import Interrupted, UserError
from fer_jax.studies import plan, training
from fer_jax.training.runtime import signals


def test_runs_in_processes_of_their_own(tmp_path, capfd):
  """Those have no fixtures, so a real dataset, of a few images."""
  (tmp_path / "few.py").write_text("""
from fer_jax.configs import default

def get_config(dataset="synthetic_faces"):
  config = default.get_config()
  config.model.name = "leaky_cnn"
  config.model.widths = (2,)
  config.model.dense = 4
  config.dataset.name = dataset
  if dataset == "synthetic_faces":
    config.dataset.num_train = config.dataset.num_validation = 14
    config.dataset.num_test = 7
  config.dataset.manual_dir = __file__ + "_nowhere"
  config.dataset.data_dir = __file__ + "_prepared"
  config.input.image_size = 8
  config.batch_size = 8
  config.num_epochs = 1
  return config
""")
  few = str(tmp_path / "few.py")
  runs = plan.plan([few, f"{few}:fer2013"], [0], {}, tmp_path)
  failed = "1 of 2 runs failed.*few:fer2013, seed 0.*nowhere"
  with pytest.raises(UserError, match=failed):
    training.train(runs, processes=2)
  done = [training.is_done(run.workdir, run.config) for run in runs]
  assert done == [True, False]
  assert "few, seed 0: done" in capfd.readouterr().out
  assert "epoch 1/1" in (runs[0].workdir / "log.txt").read_text()


@pytest.fixture
def idle_runs(tmp_path):
  """Three runs, which only `light_children` may train."""
  return [
    plan.Run("idle", seed, None, ConfigDict(), tmp_path / str(seed))
    for seed in range(3)
  ]


def test_a_killed_process_is_a_failed_run(idle_runs, monkeypatch):
  monkeypatch.setattr(training, "_train", light_children.die)
  with pytest.raises(UserError, match="1 of 1 .*ended with status -9, perhaps"):
    training.train(idle_runs[:1], processes=2)


def test_a_time_limit_is_no_failure(idle_runs, monkeypatch):
  monkeypatch.setattr(training, "_train", light_children.run_out_of_time)
  with pytest.raises(Interrupted, match="rerun the command to resume") as e:
    training.train(idle_runs[:1], processes=1)
  assert e.value.exit_code == 142


def test_a_deadline_stops_all_processes(idle_runs, monkeypatch):
  monkeypatch.setattr(training, "_train", light_children.wait)
  now = [0.0]
  clock = types.SimpleNamespace(monotonic=lambda: now[0])
  monkeypatch.setattr(signals, "time", clock)

  def let_time_pass():
    started = [run.workdir for run in idle_runs[:2]]
    wait_until(lambda: all(path.exists() for path in started), 60)
    now[0] = 60.0

  thread = threading.Thread(target=let_time_pass)
  thread.start()
  with pytest.raises(Interrupted, match="rerun the command to resume") as e:
    training.train(idle_runs, processes=2, deadline=60.0)
  thread.join()
  assert e.value.exit_code == 142
  assert not idle_runs[2].workdir.exists()
  assert not multiprocessing.active_children()


def test_a_signal_stops_all_processes(idle_runs, monkeypatch):
  monkeypatch.setattr(training, "_train", light_children.wait)

  def interrupt():
    started = [run.workdir for run in idle_runs[:2]]
    wait_until(lambda: all(path.exists() for path in started), 60)
    signal.raise_signal(signal.SIGTERM)

  thread = threading.Thread(target=interrupt)
  thread.start()
  with pytest.raises(Interrupted, match="rerun the command to resume") as e:
    training.train(idle_runs, processes=2)
  thread.join()
  assert e.value.exit_code == 128 + signal.SIGTERM
  assert not idle_runs[2].workdir.exists()
  assert not multiprocessing.active_children()
