"""Disks that become read-only or full under a run."""

import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import jax
import numpy as np
import pytest
import tiny_run
from test_faulty_runs import records
from waiting import wait_until

from fer_jax.errors import UserError
from fer_jax.training import train_loop

pytestmark = [
  pytest.mark.usefixtures("tiny_model"),
  # Of orbax's threads and coroutines, whose error the run reports.
  pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
    "ignore:coroutine:RuntimeWarning",
  ),
]


def make_read_only(folder: pathlib.Path, read_only: bool) -> None:
  """Sets whether a folder can be written, also for root."""
  if os.getuid():
    folder.chmod(0o555 if read_only else 0o755)
  else:
    command = ["chattr", "+i" if read_only else "-i", str(folder)]
    try:
      subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
      pytest.skip("root can write to every folder of this file system")


def assert_same_end(config, workdir, other) -> None:
  assert records(workdir) == records(other)
  jax.tree.map(
    np.testing.assert_array_equal,
    tiny_run.final_state(config, workdir),
    tiny_run.final_state(config, other),
  )


def test_a_read_only_checkpoint_folder_ends_a_run_at_once(
  tmp_path, prepared, trained_workdir
):
  config = tiny_run.config(prepared)
  folder = tmp_path / "checkpoints"
  since = []

  def after_epoch(metrics):
    if metrics["epoch"] == 1:
      saved = folder / str(tiny_run.STEPS_PER_EPOCH)
      wait_until(saved.exists, 60)  # It is written in the background.
      make_read_only(folder, True)
      since.append(time.monotonic())

  try:
    with pytest.raises(UserError, match="Earlier checkpoints") as error:
      train_loop.train_and_evaluate(config, tmp_path, after_epoch)
    assert time.monotonic() - since[0] < 60  # It used to wait for 300 s.
    assert "\n" not in str(error.value)
  finally:
    make_read_only(folder, False)
  train_loop.train_and_evaluate(config, tmp_path)
  assert_same_end(config, tmp_path, trained_workdir)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[pathlib.Path]:
  """A file system of its own."""
  folder = tmp_path / "disk"
  folder.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
  try:
    subprocess.run(mount, check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError):
    pytest.skip("no right to mount a file system")
  yield folder
  subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kibibytes_left", [0, 4, 16, 64, 128, 256, 512])
def test_a_full_disk_ends_a_run_that_resumes(
  small_disk, prepared, trained_workdir, kibibytes_left
):
  config = tiny_run.config(prepared, checkpoint__every_steps=1)
  workdir, filler = small_disk / "run", small_disk / "filler"

  def after_epoch(metrics):
    if metrics["epoch"] == 1:
      wait_until((workdir / "checkpoints/5").exists, 60)
      disk = os.statvfs(small_disk)
      left = disk.f_bavail * disk.f_frsize - kibibytes_left * 1024
      filler.write_bytes(bytes(max(left, 0)))

  with pytest.raises(UserError, match="(?i)no space|quota|RESOURCE") as error:
    train_loop.train_and_evaluate(config, workdir, after_epoch)
  assert "\n" not in str(error.value)
  filler.unlink()
  train_loop.train_and_evaluate(config, workdir)
  assert_same_end(config, workdir, trained_workdir)
