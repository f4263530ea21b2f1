"""Resuming with more epochs, or with another batch size."""

import json
import shutil
import signal

import pytest
import tiny_run

from fer_jax.errors import UserError
from fer_jax.training import resuming, train_loop
from fer_jax.training.checkpoints import Checkpoints
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.logging import metric_writer, progress
from fer_jax.training.optim import optimizers
from fer_jax.training.optim.early_stopping import EarlyStopping
from fer_jax.training.run_checkpoints import RunCheckpoints
from fer_jax.training.runtime.signals import Interrupted
from fer_jax.training.train_batches import TrainBatches
from fer_jax.training.workdir import read_config

pytestmark = pytest.mark.usefixtures("tiny_model")
STEPS = tiny_run.STEPS_PER_EPOCH  # 5 batches of 32 images


def records(workdir, kind):
  return [r for r in metric_writer.read(workdir) if r["kind"] == kind]


def losses(workdir):
  return [(r["epoch"], r["train_loss"]) for r in records(workdir, "epoch")]


def train_until(config, workdir, step, monkeypatch):
  """Trains, and interrupts after a number of steps."""
  update, calls = progress.Progress.update, []

  def interrupt(self, steps):
    update(self, steps)
    calls.append(steps)
    if len(calls) == step:
      signal.raise_signal(signal.SIGTERM)

  with monkeypatch.context() as patched, pytest.raises(Interrupted):
    patched.setattr(progress.Progress, "update", interrupt)
    train_loop.train_and_evaluate(config, workdir)


def test_more_epochs_of_a_finished_run(tmp_path, prepared):
  longer = tiny_run.config(prepared, num_epochs=3)
  train_loop.train_and_evaluate(longer, tmp_path / "whole")
  short = tiny_run.config(prepared, num_epochs=2)
  train_loop.train_and_evaluate(short, tmp_path / "run")
  result = train_loop.train_and_evaluate(longer, tmp_path / "run")

  assert result.num_epochs == 3
  # The rate is fixed, so that it is the run that had three epochs at once.
  assert losses(tmp_path / "run") == losses(tmp_path / "whole")
  (warning,) = records(tmp_path / "run", "warning")
  assert "num_epochs: 2 -> 3" in warning["message"]
  saved = json.loads((tmp_path / "run" / "config.json").read_text())
  assert saved["num_epochs"] == 3
  train_loop.train_and_evaluate(longer, tmp_path / "run")  # It is its own now.
  assert len(records(tmp_path / "run", "warning")) == 1


def test_the_schedule_is_computed_again(tmp_path, prepared):
  fields = {"schedule__name": "linear", "schedule__end_factor": 0.0}
  short = tiny_run.config(prepared, num_epochs=1, **fields)
  train_loop.train_and_evaluate(short, tmp_path)
  longer = tiny_run.config(prepared, num_epochs=4, **fields)
  train_loop.train_and_evaluate(longer, tmp_path)
  rates = [r["learning_rate"] for r in records(tmp_path, "epoch")]
  peak = longer.optimizer.learning_rate
  # The last update of an epoch comes 1 of 20 updates before its end.
  expected = [peak * (1 - (5 * e - 1) / 20) for e in (2, 3, 4)]
  assert rates[1:] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
  "batch_size, steps_left, next_batch",
  [(16, 4, 10 + 6), (40, 2, 4 + 2), (64, 1, 2 + 1)],
)
def test_another_batch_size_within_an_epoch(
  tmp_path, prepared, monkeypatch, batch_size, steps_left, next_batch
):
  fields = {"schedule__name": "linear", "schedule__end_factor": 0.0}
  before = tiny_run.config(prepared, num_epochs=3, **fields)
  train_until(before, tmp_path, STEPS + 3, monkeypatch)  # 96 images of 160
  after = tiny_run.config(
    prepared, num_epochs=3, batch_size=batch_size, **fields
  )
  parts = create_experiment(after)
  checkpoints, batches = Checkpoints(tmp_path), TrainBatches(parts)
  loop, state, changes = resuming.restore(parts, checkpoints, batches)
  checkpoints.close()
  assert f"batch_size: 32 -> {batch_size}" in changes
  assert loop.step == state.step == STEPS + 3
  assert loop.next_batch == next_batch
  expected = parts.batch_order[next_batch]
  assert (next(batches.iterator)["index"] == expected).all()

  train_loop.train_and_evaluate(after, tmp_path)
  _, second, third = records(tmp_path, "epoch")
  assert second["step"] == STEPS + 3 + steps_left
  assert third["step"] == second["step"] + 160 // batch_size
  final = tiny_run.final_state(after, tmp_path)
  rate = float(optimizers.learning_rate(final.opt_state))
  total = 3 * (160 // batch_size)
  peak = after.optimizer.learning_rate
  assert rate == pytest.approx(peak / total, rel=1e-5)


def test_a_change_twice(tmp_path, prepared, monkeypatch):
  before = tiny_run.config(prepared, num_epochs=2)
  train_until(before, tmp_path, 2, monkeypatch)  # 64 images
  halves = tiny_run.config(prepared, num_epochs=2, batch_size=16)
  train_until(halves, tmp_path, 2, monkeypatch)  # 96 images
  train_loop.train_and_evaluate(before, tmp_path)
  # 2 of 32, 2 of 16, 2 of 32; 5 of 32.
  assert [r["step"] for r in records(tmp_path, "epoch")] == [6, 11]


@pytest.mark.parametrize(
  "fields", [{"batch_size": 16}, {"num_epochs": 1}], ids=str
)
def test_a_change_without_effect_is_refused(tmp_path, prepared, fields):
  config = tiny_run.config(prepared, num_epochs=2)
  train_loop.train_and_evaluate(config, tmp_path)
  saved = (tmp_path / "config.json").read_bytes()
  other = tiny_run.config(prepared, **({"num_epochs": 2} | fields))
  with pytest.raises(UserError, match="finished after 2 .*num_epochs above 2"):
    train_loop.train_and_evaluate(other, tmp_path)
  assert (tmp_path / "config.json").read_bytes() == saved


def test_early_stopping_can_be_lifted(tmp_path, prepared):
  stopping = {"early_stopping__min_delta": 100.0}
  config = tiny_run.config(
    prepared, num_epochs=9, early_stopping__patience=1, **stopping
  )
  assert train_loop.train_and_evaluate(config, tmp_path).num_epochs == 2
  longer = tiny_run.config(
    prepared, num_epochs=10, early_stopping__patience=1, **stopping
  )
  with pytest.raises(UserError, match="patience=0"):
    train_loop.train_and_evaluate(longer, tmp_path)
  lifted = tiny_run.config(
    prepared, num_epochs=3, early_stopping__patience=0, **stopping
  )
  assert train_loop.train_and_evaluate(lifted, tmp_path).num_epochs == 3


@pytest.mark.parametrize(
  "fields", [{"num_epochs": 2}, {"early_stopping__patience": 1}], ids=str
)
def test_a_run_can_be_shortened(tmp_path, prepared, monkeypatch, fields):
  never_better = {"num_epochs": 9, "early_stopping__min_delta": 100.0}
  before = tiny_run.config(
    prepared, **never_better | {"early_stopping__patience": 0}
  )
  train_until(before, tmp_path, 3 * STEPS + 1, monkeypatch)
  unchanged = {"early_stopping__patience": 0}
  after = tiny_run.config(prepared, **never_better | unchanged | fields)
  result = train_loop.train_and_evaluate(after, tmp_path)
  assert result.num_epochs == 3 and result.test is not None
  assert [epoch for epoch, _ in losses(tmp_path)] == [1, 2, 3]


def test_a_batch_size_that_ends_the_epoch_records_it_once(
  tmp_path, prepared, monkeypatch
):
  before = tiny_run.config(prepared, num_epochs=1)
  train_until(before, tmp_path, STEPS - 1, monkeypatch)  # 128 images of 160
  after = tiny_run.config(prepared, num_epochs=1, batch_size=64)
  for _ in range(2):
    train_loop.train_and_evaluate(after, tmp_path)
    assert [r["epoch"] for r in records(tmp_path, "epoch")] == [1]
  assert len(records(tmp_path, "warning")) == 1


def test_a_workdir_without_checkpoints_takes_any_configuration(
  tmp_path, prepared, monkeypatch
):
  def out_of_memory(*_):
    raise MemoryError

  with monkeypatch.context() as patched, pytest.raises(MemoryError):
    patched.setattr(train_loop, "compile_all", out_of_memory)
    train_loop.train_and_evaluate(tiny_run.config(prepared), tmp_path)
  smaller = tiny_run.config(prepared, batch_size=16, seed=1, num_epochs=1)
  train_loop.train_and_evaluate(smaller, tmp_path)
  assert not records(tmp_path, "warning")


def cut_off_after_the_best(config, workdir, monkeypatch):
  """Trains until epoch 2 is saved as the best, but not the run."""
  save = RunCheckpoints.save

  def fail(self, step, fetch_state, iterator, info):
    if info["loop_state"]["epoch"] == 2:
      raise UserError("disk full")
    save(self, step, fetch_state, iterator, info)

  with monkeypatch.context() as patched, pytest.raises(UserError, match="full"):
    patched.setattr(RunCheckpoints, "save", fail)
    train_loop.train_and_evaluate(config, workdir)
  assert Checkpoints(workdir, read_only=True).best_step == 2 * STEPS


def test_a_best_epoch_that_the_run_lost_is_not_its_best(
  tmp_path, prepared, monkeypatch
):
  config = tiny_run.config(prepared)
  cut_off_after_the_best(config, tmp_path, monkeypatch)
  result = train_loop.train_and_evaluate(
    tiny_run.config(prepared, num_epochs=1), tmp_path
  )
  (epoch,) = records(tmp_path, "epoch")
  assert result.best_epoch == epoch["epoch"] == 1
  assert result.validation.loss == pytest.approx(epoch["validation_loss"])
  assert Checkpoints(tmp_path, read_only=True).best_step == STEPS


def test_a_lost_best_epoch_of_larger_steps_is_replaced(
  tmp_path, prepared, monkeypatch
):
  config = tiny_run.config(prepared)
  cut_off_after_the_best(config, tmp_path, monkeypatch)
  train_loop.train_and_evaluate(
    tiny_run.config(prepared, batch_size=160), tmp_path
  )
  best = Checkpoints(tmp_path, read_only=True).best_step
  assert best in [r["step"] for r in records(tmp_path, "epoch") if r["best"]]


@pytest.mark.parametrize("num_epochs", [2, 3])
def test_without_a_best_checkpoint_another_epoch_is_it(
  tmp_path, prepared, num_epochs
):
  train_loop.train_and_evaluate(tiny_run.config(prepared), tmp_path)
  shutil.rmtree(tmp_path / "checkpoints" / "best")
  config = tiny_run.config(prepared, num_epochs=num_epochs)
  result = train_loop.train_and_evaluate(config, tmp_path)
  assert result.best_epoch == num_epochs
  assert any(
    "no checkpoint of the best epoch" in record["message"]
    for record in records(tmp_path, "warning")
  )


def test_the_configuration_follows_data_that_were_moved(tmp_path, prepared):
  config = tiny_run.config(prepared, num_epochs=1)
  train_loop.train_and_evaluate(config, tmp_path / "run")
  shutil.copytree(prepared, tmp_path / "moved")
  moved = tiny_run.config(tmp_path / "moved", num_epochs=1)
  train_loop.train_and_evaluate(moved, tmp_path / "run")
  saved = read_config(tmp_path / "run")
  assert saved.dataset.data_dir == str(tmp_path / "moved")


def test_patience_counts_epochs_of_an_extended_run(
  tmp_path, prepared, monkeypatch
):
  update, counts = EarlyStopping.update, []

  def note(self, epoch, value, num_epochs=1):
    counts.append((epoch, num_epochs))
    return update(self, epoch, value, num_epochs)

  monkeypatch.setattr(EarlyStopping, "update", note)
  for num_epochs in (4, 6):
    config = tiny_run.config(
      prepared, num_epochs=num_epochs, eval_every_epochs=3
    )
    train_loop.train_and_evaluate(config, tmp_path)
  assert counts == [(3, 3), (4, 1), (6, 2)]
