"""Runs of several real processes on this machine, for tests."""

import dataclasses
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.logging import metric_writer

SECONDS = 240  # until a run must have ended, on a busy machine
RECIPE = (
  "--config=chang_cnn",
  "--config.dataset.name=synthetic_faces",
  "--config.dataset.classes=",
  "--config.dataset.num_train=256",
  "--config.dataset.num_validation=50",
  "--config.dataset.num_test=30",
  "--config.model.widths=(4,8)",
  "--config.optimizer.name=sgd",
  "--config.batch_size=32",
  "--config.eval_batch_size=32",
  "--config.log_every_steps=2",
  "--config.num_epochs=2",
)
STEPS_PER_EPOCH = 8


@dataclasses.dataclass
class Run:
  """Processes of `fer-jax train`, whose output goes to files."""

  processes: Sequence[subprocess.Popen[bytes]]
  workdir: pathlib.Path

  def wait(self) -> list[int]:
    """Returns the exit statuses; a process that hangs is killed."""
    end = time.monotonic() + SECONDS
    try:
      return [
        process.wait(max(1, end - time.monotonic()))
        for process in self.processes
      ]
    finally:
      for process in self.processes:
        process.kill()

  def stderr(self, index: int) -> str:
    """Returns what a process has written to stderr."""
    return _log(self.workdir, index, "err").read_text()

  def stdout(self, index: int) -> str:
    """Returns what a process has written to stdout."""
    return _log(self.workdir, index, "out").read_text()

  def wait_for(self, text: str) -> None:
    """Waits until the first process has written a text to stderr."""
    end = time.monotonic() + SECONDS
    while text not in self.stderr(0):
      running = [p.poll() is None for p in self.processes]
      if time.monotonic() > end or not all(running):
        for process in self.processes:
          process.kill()
        raise AssertionError(f"{running}: {self.stderr(0)}")
      time.sleep(0.05)

  def send(self, index: int, number: int = signal.SIGTERM) -> None:
    """Sends a signal to one process."""
    self.processes[index].send_signal(number)


def start(
  workdir: pathlib.Path,
  prepared: pathlib.Path,
  num_processes: int = 1,
  fields: Sequence[str] = (),
  devices: int = 1,
  address: str = "",
) -> Run:
  """Starts the processes of a run.

  Args:
    workdir: of the run; logs go beside it.
    prepared: the folder of prepared datasets.
    num_processes: 1 is a process that is not distributed.
    fields: further flags.
    devices: of each process.
    address: of the coordinator; a free port if not given.
  """
  address = address or f"127.0.0.1:{free_port()}"
  environment = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"
    " --xla_backend_optimization_level=0",  # compiles sooner
  }
  processes = []
  for index in range(num_processes):
    command = [sys.executable, "-m", "fer_jax.train", *RECIPE, *fields]
    command += [f"--config.dataset.data_dir={prepared}", f"--workdir={workdir}"]
    if num_processes > 1:
      command += [
        f"--coordinator_address={address}",
        f"--num_processes={num_processes}",
        f"--process_id={index}",
      ]
    with (
      open(_log(workdir, index, "out"), "wb") as out,
      open(_log(workdir, index, "err"), "wb") as err,
    ):
      processes.append(
        subprocess.Popen(command, stdout=out, stderr=err, env=environment)
      )
  return Run(processes, workdir)


def train(*args: Any, **kwargs: Any) -> Run:
  """Starts a run, and waits until it has ended well."""
  run = start(*args, **kwargs)
  statuses = run.wait()
  assert set(statuses) == {0}, (statuses, run.stderr(0), run.stderr(-1))
  return run


def free_port() -> int:
  """Returns a port that nobody listens to."""
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    return free.getsockname()[1]


def parameters(workdir: pathlib.Path) -> np.ndarray:
  """Returns all variables of the latest checkpoint in one array."""
  checkpoints = Checkpoints(workdir, read_only=True)
  variables, _ = checkpoints.restore_variables("latest")
  leaves: list[np.ndarray] = []

  def collect(tree: Any) -> None:
    if isinstance(tree, dict):
      for name in sorted(tree):
        collect(tree[name])
    else:
      leaves.append(np.ravel(tree))

  collect(variables)
  return np.concatenate(leaves)


def epochs(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the metrics of every epoch, without times."""
  return [
    {k: v for k, v in r.items() if k not in ("seconds", "images_per_second")}
    for r in metric_writer.read(workdir)
    if r["kind"] == "epoch"
  ]


def saved_steps(workdir: pathlib.Path) -> list[int]:
  """Returns the steps of the checkpoints that a run can resume from."""
  folders = (workdir / "checkpoints").iterdir()
  return sorted(int(f.name) for f in folders if f.name.isdigit())


def _log(workdir: pathlib.Path, index: int, kind: str) -> pathlib.Path:
  index = max(index, 0)
  return workdir.with_name(f"{workdir.name}.{index}.{kind}")
