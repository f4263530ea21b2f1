"""The command: killed, resumed by two processes; its best is trained."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import tiny_sweep

from fer_jax.errors import UserError
from fer_jax.output_folder import OutputFolder
from fer_jax.sweeps import search, sweep_report
from fer_jax.sweeps.space import Integer
from fer_jax.training.logging import metric_writer

RECIPE = """
import pathlib, sys
sys.path.insert(0, {tests!r})
import tiny_sweep

def get_config():
  config = tiny_sweep.config(pathlib.Path({folder!r}))
  with config.unlocked():
    config.compilation_cache = {folder!r} + "/compiled"
    config.num_epochs = 4
  return config
"""
SPACE = """
from fer_jax.sweeps.space import Integer

def get_space():
  return {"seed": Integer(0, 1)}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp("command")
  tests = str(pathlib.Path(__file__).parent)
  recipe = RECIPE.format(tests=tests, folder=str(folder))
  (folder / "tiny.py").write_text(recipe)
  (folder / "space.py").write_text(SPACE)
  return folder


def test_an_edited_report_is_refused_before_training(tmp_path, monkeypatch):
  monkeypatch.setattr(search, "work", pytest.fail)
  plan = tiny_sweep.plan(tmp_path, {"seed": Integer(0, 1)})
  report = OutputFolder(plan.workdir / "report", kind=sweep_report.KIND)
  for name in ("index.html", "best_config.py"):
    with report.write(name) as temporary:
      temporary.write_text("made")
  (report.folder / "best_config.py").write_text("edited")
  with pytest.raises(UserError, match="best_config.py .*was changed since"):
    search.search(plan)


def start(folder, name, *arguments, **options):
  environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  return subprocess.Popen(
    [sys.executable, "-m", f"fer_jax.{name}", *arguments],
    cwd=folder,
    env=environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    **options,
  )


def sweep(folder, *arguments, **options):
  flags = ("--config=tiny.py", "--space=space.py", "--workdir=sweep")
  return start(folder, "sweep", *flags, *arguments, **options)


def test_a_killed_sweep_is_resumed_by_two_processes(folder):
  process = sweep(folder)
  try:
    deadline = time.monotonic() + 300
    while not any((folder / "sweep/trials/0000/checkpoints").glob("[4-6]")):
      assert process.poll() is None, process.stderr.read()
      assert time.monotonic() < deadline
      time.sleep(0.01)
  finally:
    process.kill()  # SIGKILL
    process.communicate()
  started = {path.name for path in (folder / "sweep/trials").iterdir()}
  assert process.returncode == -signal.SIGKILL and started == {"0000"}

  out, err = sweep(folder, "--workers=2").communicate()
  assert "error" not in err
  assert "trial 0 (1 of 2) resumes after epoch" in out
  assert out.count("complete") == 2
  started = {path.name for path in (folder / "sweep/trials").iterdir()}
  assert started == {"0000", "0001"}
  for name in started:
    records = metric_writer.read(folder / "sweep/trials" / name)
    epochs = [r["epoch"] for r in records if r["kind"] == "epoch"]
    assert epochs == list(range(1, 5))

  train = next(line for line in out.splitlines() if "train the best: " in line)
  arguments = train.partition("fer-jax train ")[2].split()
  done = start(folder, "train", *arguments)
  out, err = done.communicate()
  assert done.returncode == 0, err
  assert "test loss" in out
  best = metric_writer.read(folder / "sweep/best")[-1]
  score = f"{best['validation_accuracy']:.2%}"[:-1]
  assert (
    f"accuracy {score} %"
    in (folder / "sweep/report/best_config.py").read_text()
  )
