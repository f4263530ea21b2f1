"""Training processes that are killed (SIGKILL) at random moments, and resume.

The run saves after every step. It is killed while it starts, prepares the
dataset, builds the kernels, trains and saves, until there were NUM_KILLS kills;
a run that ends is followed by one in another workdir. Each must end with the
state and the metrics of a run that nobody killed, to the last bit.
"""

import collections
import contextlib
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import jax
import numpy as np
import pytest
import tiny_run
from run_records import untimed

from fer_jax import checksums
from fer_jax.training import workdir
from fer_jax.training.checkpoints import Checkpoints

NUM_KILLS = 100
STEPS_PER_EPOCH = 4  # 128 images in batches of 32
FLAGS = (
  "--config=chang_cnn",
  "--config.dataset.name=synthetic_faces",
  "--config.dataset.classes=",
  "--config.dataset.num_train=128",
  "--config.dataset.num_validation=64",
  "--config.dataset.num_test=64",
  "--config.model.widths=(4,8)",
  "--config.model.dense=32",
  "--config.eval_batch_size=64",
  "--config.num_epochs=40",
  "--config.log_every_steps=1",
  "--config.checkpoint.every_steps=1",
)
# What is waited for before a kill, and the longest time from then to the kill.
DELAYS = {
  "starting": 6.0,
  "preparing": 1.0,
  "building": 3.0,
  "training": 1.5,
  "saving": 0.02,
  "saving best": 0.02,
}


def moments(rng: random.Random) -> Iterator[str]:
  """Yields when to kill: keys of DELAYS."""
  yield from ["preparing"] * 8 + ["building"] * 8
  while True:
    yield rng.choice(["starting"] + 3 * ["training", "saving", "saving best"])


class Runs:
  """Starts and kills training processes in a folder."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    folder.mkdir()
    self.checkpoints = pathlib.Path()  # of the present workdir
    self.counts: collections.Counter[str] = collections.Counter()
    self._random = random.Random(1)
    self._left_over: set[tuple[str, int]] = set()  # by an earlier process

  def start(self, name: str) -> "subprocess.Popen[str]":
    """Starts training in a workdir of that name."""
    self.checkpoints = self.folder / name / "checkpoints"
    self._left_over = {*self._unfinished()}
    paths = {
      "workdir": name,
      "config.dataset.data_dir": "prepared",
      "config.compilation_cache": "compiled",
    }
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment["XDG_CACHE_HOME"] = str(self.folder / "cache")
    with open(self.folder / "log", "w") as log:
      return subprocess.Popen(
        [sys.executable, "-m", "fer_jax.cli.main", "train", *FLAGS]
        + [f"--{k}={self.folder / path}" for k, path in paths.items()],
        env=environment,
        stdout=log,
        stderr=log,
        text=True,
        start_new_session=True,
      )

  def under_way(self) -> str:
    """Returns what the process is doing, as far as its files show."""
    if any(self.folder.glob("prepared/*/*/incomplete.*")):
      return "preparing"
    if any(self.folder.glob("cache/fer_jax/kernels/tmp*")):
      return "building"
    if saves := {path for path, _ in {*self._unfinished()} - self._left_over}:
      best = any("/best/" in path for path in saves)
      return "saving best" if best else "saving"
    return "training" if self._has_trained() else "starting"

  def _unfinished(self) -> Iterator[tuple[str, int]]:
    """Yields the checkpoints that are being written, with their times."""
    for parent in (self.checkpoints, self.checkpoints / "best"):
      for path in parent.glob("[0-9]*.orbax-checkpoint-tmp"):
        with contextlib.suppress(OSError):
          yield str(path), path.stat().st_mtime_ns

  def _has_trained(self) -> bool:
    return " images/s" in (self.folder / "log").read_text()

  def kill(self, name: str, moment: str) -> bool:
    """Starts a run and kills it; returns whether it ended before that."""
    before = self.latest_step(name)
    process = self.start(name)
    while process.poll() is None and not self._is_due(moment):
      time.sleep(0.002)
    time.sleep(self._random.uniform(0, DELAYS[moment]))
    doing = self.under_way()
    with contextlib.suppress(ProcessLookupError):
      os.killpg(process.pid, signal.SIGKILL)
    if killed := process.wait() == -signal.SIGKILL:
      self.counts[doing] += 1
    else:
      assert process.returncode == 0, (self.folder / "log").read_text()
    self.check(name, before)
    return not killed

  def _is_due(self, moment: str) -> bool:
    if moment == "starting":
      return True
    now = self.under_way()
    # What was prepared or built by an earlier process is not again.
    return now == moment or "sav" not in moment and now == "training"

  def check(self, name: str, before: int) -> None:
    """Checks that it resumed at the latest step, and what it left behind."""
    log = (self.folder / "log").read_text()
    if resumed := re.search(r"resumed in epoch (\d+) at step (\d+)", log):
      epoch, step = int(resumed[1]), int(resumed[2])
      assert (epoch - 1) * STEPS_PER_EPOCH + step == before
    assert "damaged" not in log and "Traceback" not in log, log
    folder = self.folder / name / "checkpoints"
    # Older ones than those that are kept may be half deleted.
    for saved in steps(folder)[-2:] + steps(folder / "best")[-1:]:
      self.counts["whole checkpoints"] += 1
      assert checksums.exist(saved) and not checksums.find_damage(saved)

  def latest_step(self, name: str) -> int:
    """Returns the step of the latest complete checkpoint; 0 without one."""
    found = steps(self.folder / name / "checkpoints")
    return int(found[-1].name) if found else 0


def steps(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the complete checkpoints in a folder, in order."""
  found = [path for path in folder.glob("[0-9]*") if path.name.isdigit()]
  return sorted(found, key=lambda path: int(path.name))


def assert_same_run(folder: pathlib.Path, other: pathlib.Path) -> None:
  assert untimed(folder) == untimed(other)
  states = [
    (
      tiny_run.final_state(workdir.read_config(path), path),
      Checkpoints(path, read_only=True).restore_variables("best")[0],
    )
    for path in (folder, other)
  ]
  jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.slow
def test_killed_runs_end_like_any_other(tmp_path, capfd):
  whole = Runs(tmp_path / "whole")
  killed = Runs(tmp_path / "killed")
  assert whole.start("run").wait() == 0
  number = 0
  for moment in moments(random.Random(0)):
    if sum(killed.counts[kind] for kind in DELAYS) >= NUM_KILLS:
      break
    if killed.kill(f"run{number}", moment):
      assert_same_run(whole.folder / "run", killed.folder / f"run{number}")
      number += 1
  assert killed.start(f"run{number}").wait() == 0
  assert_same_run(whole.folder / "run", killed.folder / f"run{number}")
  assert not any(killed.folder.glob("cache/fer_jax/kernels/tmp*"))
  assert not any(killed.folder.glob("*/checkpoints/*tmp*"))
  with capfd.disabled():
    print(f"\n{dict(killed.counts)}, runs compared: {number + 1}")
