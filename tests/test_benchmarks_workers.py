"""The worker processes of benchmarks: errors, time limits and how they end."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import workers
from waiting import wait_until

FOLDER = Path(workers.__file__).parent
SLEEPER = """
import sys, time
sys.path.insert(0, {folder!r})
import workers
workers.serve({{"sleep": lambda: time.sleep(60), "say": lambda: "yes"}})
"""


@pytest.fixture
def sleeper(tmp_path) -> Path:
  """A worker's script that sleeps when it is asked to."""
  script = tmp_path / "sleeper.py"
  script.write_text(SLEEPER.format(folder=str(FOLDER)))
  return script


def test_a_worker_tells_why_it_ended(tmp_path):
  script = tmp_path / "script.py"
  script.write_text("raise SystemExit('no such library')")
  with workers.ended([workers.Worker(script, {})]) as started:
    with pytest.raises(workers.WorkerError, match="no such library"):
      started[0].ask("prepare")


def test_a_worker_that_takes_too_long_is_ended(sleeper):
  with workers.ended([workers.Worker(sleeper, {}, timeout=0.1)]) as started:
    with pytest.raises(workers.WorkerError, match="no response in 0.1 s"):
      started[0].ask("sleep")


@pytest.mark.skipif(not workers.LINUX, reason="only Linux ends children")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_workers_end_with_who_started_them(sleeper, tmp_path, number):
  parent = tmp_path / "parent.py"
  parent.write_text(
    f"""
import pathlib, sys, time
sys.path.insert(0, {str(FOLDER)!r})
import workers
worker = workers.Worker(pathlib.Path({str(sleeper)!r}), {{}})
with workers.ended([worker]):
  worker.ask("say")
  print(worker.pid, flush=True)
  time.sleep(60)
"""
  )
  process = subprocess.Popen(
    [sys.executable, str(parent)], stdout=subprocess.PIPE, text=True
  )
  assert process.stdout
  with process.stdout:
    child = int(process.stdout.readline())
    wait_until(lambda: state(child) == "T")  # stopped
    process.send_signal(number)
    process.wait()
  wait_until(lambda: state(child) in ("", "Z"))


def state(pid: int) -> str:
  """A process's state on Linux, "" if there is none."""
  try:
    text = Path(f"/proc/{pid}/stat").read_text()
  except OSError:
    return ""
  return text.rpartition(")")[2].split()[0]
