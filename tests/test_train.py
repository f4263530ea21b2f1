"""The command itself: a killed run goes on, and bad input is one line."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from run_records import untimed

ROOT = pathlib.Path(__file__).parent.parent
RECIPE = str(ROOT / "configs" / "chang_cnn.py")

# 7 steps an epoch of a small network: seconds, once it is compiled.
SMALL = [
  "--config.dataset.name=synthetic_faces",
  "--config.dataset.classes=",
  "--config.model.widths=(8,8,16)",
  "--config.model.dense=32",
  "--config.augment.blur=0",
  "--config.augment.rotation=0",
  "--config.dataset.num_train=700",
  "--config.dataset.num_validation=100",
  "--config.dataset.num_test=100",
  "--config.batch_size=100",
  "--config.eval_batch_size=100",
  "--config.num_epochs=3",
  "--config.log_every_steps=1",
  "--config.checkpoint.every_steps=1",
]


def command(folder: pathlib.Path, *flags: str) -> list[str]:
  return [
    sys.executable,
    "-m",
    "fer_jax.train",
    f"--config={RECIPE}",
    f"--config.dataset.data_dir={folder / 'prepared'}",
    f"--config.compilation_cache={folder / 'compiled'}",
    *flags,
  ]


def environment() -> dict[str, str]:
  return {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}


def train(
  folder: pathlib.Path, *flags: str
) -> "subprocess.CompletedProcess[str]":
  return subprocess.run(
    command(folder, *flags),
    env=environment(),
    cwd=folder,
    capture_output=True,
    text=True,
  )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(folder: pathlib.Path) -> pathlib.Path:
  """An uninterrupted run."""
  done = train(folder, *SMALL, "--workdir=whole")
  assert done.returncode == 0, done.stderr
  assert "best epoch" in done.stdout
  return folder / "whole"


def test_a_killed_run_goes_on_to_the_last_digit(folder, whole):
  workdir = folder / "killed"
  process = subprocess.Popen(
    command(folder, *SMALL, "--workdir=killed"),
    env=environment(),
    cwd=folder,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  try:
    # In the second of three epochs of seven steps, between their ends.
    deadline = time.monotonic() + 300
    while not (workdir / "checkpoints" / "9").is_dir():
      assert process.poll() is None, "ended before it could be killed"
      assert time.monotonic() < deadline
      time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
  finally:
    process.kill()
    process.wait()
  assert not any(r["kind"] == "summary" for r in untimed(workdir))

  resumed = train(folder, *SMALL, "--workdir=killed")
  assert resumed.returncode == 0, resumed.stderr
  assert "resumed in epoch 2" in resumed.stderr
  assert "programs from the cache" in resumed.stderr
  assert untimed(workdir) == untimed(whole)


def test_ctrl_c_saves_and_says_how_to_resume(folder, whole):
  said = ""
  with subprocess.Popen(
    command(folder, *SMALL, "--workdir=stopped"),
    env=environment(),
    cwd=folder,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stderr is not None
    for line in process.stderr:
      said += line
      if "step 2/7" in line:
        process.send_signal(signal.SIGINT)
  assert process.returncode == 130, said
  assert "run the same command again to resume" in said
  resumed = train(folder, *SMALL, "--workdir=stopped")
  assert resumed.returncode == 0, resumed.stderr
  assert untimed(folder / "stopped") == untimed(whole)


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    (["--config.batch_sise=3"], "batch_sise"),
    (["--workdirs=x"], "workdirs"),
    (["extra"], "extra"),
    (["--config.model.name=resnet20"], "unknown model 'resnet20'"),
    (["--config.model.activation=tanh"], "unknown activation 'tanh'"),
    (["--config.batch_size=three"], "batch_size"),
    (
      ["--config.dataset.name=fer2013", "--config.dataset.manual_dir=nowhere"],
      "nowhere",
    ),
    ([*SMALL, "--workdir=/proc/nothing"], "/proc/nothing"),
  ],
)
def test_bad_input_is_one_line(folder, flags, message):
  defaults = [*SMALL[:2], "--workdir=bad"]
  done = train(folder, *defaults, *flags)
  assert done.returncode == 1, done.stderr
  *told, line = done.stderr.strip().splitlines()
  assert line.startswith("error: ") and message in line
  assert all(other.startswith("prepared ") for other in told)


def test_a_missing_recipe_is_one_line(folder):
  done = subprocess.run(
    [sys.executable, "-m", "fer_jax.train", "--config=configs/none.py"],
    cwd=folder,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 1
  (line,) = done.stderr.strip().splitlines()
  assert "configs/none.py" in line


def test_training_imports_neither_tensorflow_nor_torch(tmp_path):
  """Not even where they are installed: each takes seconds."""
  for name in ("tensorflow", "torch"):
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise SystemExit(__name__)")
  code = (
    "import fer_jax.train, fer_jax.training.train_loop;"
    "from fer_jax.data.datasets import fer2013, synthetic_faces;"
    "from fer_jax.training.logging.metric_writer import scalar;"
    "import fer_jax; fer_jax.load_model, fer_jax.evaluate_model"
  )
  done = subprocess.run(
    [sys.executable, "-c", code],
    env={**os.environ, "PYTHONPATH": str(tmp_path)},
    capture_output=True,
    text=True,
  )
  assert (done.returncode, done.stderr) == (0, "")
