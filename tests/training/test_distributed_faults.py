"""Several processes that are stopped, killed, or differ."""

import itertools
import signal
import time

import numpy as np
import process_runs
import pytest
from process_runs import STEPS_PER_EPOCH, start

pytestmark = pytest.mark.slow
EPOCHS = "--config.num_epochs=4"
LONG = "--config.num_epochs=2000"


@pytest.fixture(scope="module")
def uninterrupted(prepared, tmp_path_factory):
  """The workdir of two processes that nobody disturbed."""
  workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
  process_runs.train(workdir, prepared, 2, [EPOCHS])
  return workdir


@pytest.mark.usefixtures("hangups_end_processes")
@pytest.mark.parametrize(
  ("count", "index", "number"),
  [
    (2, 0, signal.SIGTERM),
    (2, 1, signal.SIGTERM),
    (2, 1, signal.SIGINT),
    (2, 0, signal.SIGHUP),
    (4, 3, signal.SIGTERM),
  ],
)
def test_a_signal_to_one_stops_all_at_the_same_step(
  tmp_path, prepared, uninterrupted, count, index, number
):
  run = start(tmp_path / "run", prepared, count, [EPOCHS])
  run.wait_for("epoch 1/4  train loss")
  run.send(index, number)
  assert run.wait() == [128 + number] * count
  assert "interrupted in epoch" in run.stderr(0)
  told = f"{signal.Signals(number).name} in process {index} of {count}"
  for i in range(count):
    assert (told in run.stderr(i)) == (i == index)
    if i and i != index:
      assert run.stderr(i) == ""
  step = process_runs.saved_steps(run.workdir)[-1]
  assert f"after {step} steps; saved in" in run.stderr(0)
  process_runs.train(run.workdir, prepared, 2, [EPOCHS])
  assert_same_training(run.workdir, uninterrupted, exact=count == 2)


def test_a_time_limit_stops_all(tmp_path, prepared):
  fields = [LONG, "--config.max_minutes=0.2"]
  run = start(tmp_path / "run", prepared, 2, fields)
  assert run.wait() == [142, 142]
  assert "\ninterrupted " in run.stderr(0) and run.stderr(1) == ""


@pytest.mark.parametrize(("count", "index"), [(2, 0), (2, 1), (4, 2)])
def test_a_killed_process_ends_the_others_with_one_line(
  tmp_path, prepared, count, index
):
  run = start(tmp_path / "run", prepared, count, [LONG])
  run.wait_for(" 2/2000  train loss")
  run.send(index, signal.SIGKILL)
  killed = time.monotonic()
  statuses = run.wait()
  assert time.monotonic() - killed < 60
  assert statuses == [-9 if i == index else 1 for i in range(count)]
  for i in range(count):
    lines = run.stderr(i).splitlines()
    errors = [line for line in lines if "is lost" in line]
    if i != index:
      assert len(errors) == 1 and f"process {index}" in errors[0]
      assert "Traceback" not in run.stderr(i)
      assert "Fatal Python error" not in run.stderr(i)
      assert len(lines) == 1 or i == 0
  assert process_runs.saved_steps(run.workdir)


@pytest.mark.parametrize(
  ("index", "then"), list(itertools.product([0, 1], [1, 2, 4]))
)
def test_a_killed_run_resumes_with_any_number_of_processes(
  tmp_path, prepared, uninterrupted, index, then
):
  run = start(tmp_path / "run", prepared, 2, [EPOCHS])
  run.wait_for("epoch 2/4 step 2")
  run.send(index, signal.SIGKILL)
  run.wait()
  again = process_runs.train(run.workdir, prepared, then, [EPOCHS])
  assert "resumed in epoch" in again.stderr(0)
  assert_same_training(run.workdir, uninterrupted, exact=then == 2)


def test_a_run_of_one_process_resumes_with_two(
  tmp_path, prepared, uninterrupted
):
  run = start(tmp_path / "run", prepared, 1, [EPOCHS])
  run.wait_for("epoch 1/4  train loss")
  run.send(0)
  assert run.wait() == [143]
  process_runs.train(run.workdir, prepared, 2, [EPOCHS])
  assert_same_training(run.workdir, uninterrupted, exact=False)


def test_a_loss_that_is_not_finite_ends_all_with_one_line(tmp_path, prepared):
  fields = [LONG, "--config.optimizer.learning_rate=1e30"]
  run = start(tmp_path / "run", prepared, 2, fields)
  assert run.wait() == [1, 1]
  assert run.stderr(0).count("error: non-finite") == 1 and run.stderr(1) == ""


def test_early_stopping_stops_all(tmp_path, prepared):
  fields = [
    LONG,
    "--config.early_stopping.patience=1",
    "--config.optimizer.learning_rate=1e-30",
  ]
  run = process_runs.train(tmp_path / "run", prepared, 2, fields)
  assert len(process_runs.epochs(run.workdir)) < 10


def test_a_process_with_an_error_ends_the_others(tmp_path, prepared):
  workdir = tmp_path / "run"
  workdir.write_text("a file")  # Only process 0 uses it.
  run = start(workdir, prepared, 2)
  assert run.wait() == [1, 1]
  assert "error: workdir" in run.stderr(0)
  assert "process 0 of 2" in run.stderr(1) and "File exists" in run.stderr(1)
  assert len(run.stderr(1).splitlines()) == 1


@pytest.mark.parametrize("index", [0, 1])
def test_a_process_that_finds_no_other_ends_in_time(tmp_path, prepared, index):
  fields = ["--initialization_timeout=5"]
  run = start(tmp_path / "run", prepared, 2, fields)
  run.send(1 - index, signal.SIGKILL)
  statuses = run.wait()
  assert statuses[index] == 1
  lines = run.stderr(index).splitlines()
  assert len(lines) == 1 and "within 5 s" in lines[0], lines


def assert_same_training(one, other, exact):
  """Metrics and parameters are equal, but for the order of sums if not exact.

  Gradients are sums over processes: other numbers of them add in another
  order, and rounding switches a few ReLUs.
  """
  for mine, theirs in zip(
    process_runs.epochs(one), process_runs.epochs(other), strict=True
  ):
    assert mine["step"] == theirs["step"]
    for name in ("train_loss", "validation_loss"):
      tolerance = 0 if exact else 2e-3
      np.testing.assert_allclose(mine[name], theirs[name], rtol=tolerance)
  a, b = map(process_runs.parameters, (one, other))
  difference = np.linalg.norm(a - b) / np.linalg.norm(b)
  assert difference == 0 if exact else difference < 1e-3
  assert process_runs.saved_steps(one)[-1] == 4 * STEPS_PER_EPOCH
