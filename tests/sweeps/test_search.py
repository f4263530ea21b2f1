"""Whole sweeps: trained, interrupted, resumed, pruned, failed, reported."""

import csv
import shlex
import signal
import types

import headless
import jax
import pytest
import tiny_sweep

from fer_jax import config as configs
from fer_jax.errors import MissingRelease, UserError
from fer_jax.studies.plan import load_recipe
from fer_jax.sweeps import best_config, search, sweep_report, trials, worker
from fer_jax.sweeps import plan as sweep_plan
from fer_jax.sweeps.space import Choice, Integer, LogUniform
from fer_jax.sweeps.trial_store import TrialStore
from fer_jax.training import split_evaluation, train_loop
from fer_jax.training.logging import metric_writer, progress
from fer_jax.training.runtime import signals
from fer_jax.training.runtime.signals import Interrupted
from fer_jax.training.workdir import read_config

# A learning rate of 1e30 is too high for anything.
FIELDS = {
  "optimizer.learning_rate": Choice((1e-2, 1e30)),
  "seed": Integer(0, 1),
  "optimizer.name": "sgd",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("sweeps")


@pytest.fixture(scope="module")
def searched(folder):
  """A finished sweep, half of whose trials fail; splits it evaluated."""
  plan = tiny_sweep.plan(folder, FIELDS, sampler="grid")
  splits = set()
  evaluate = split_evaluation.Evaluator.__call__

  def noted(self, variables, split, *stops):
    splits.add(split)
    return evaluate(self, variables, split, *stops)

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(split_evaluation.Evaluator, "__call__", noted)
    search.search(plan)
  return plan, splits


def test_a_sweep_reads_validation_only(searched):
  plan, splits = searched
  assert splits == {"validation"}
  for number in range(2):
    summary = metric_writer.read(plan.folder(number))[-1]
    assert summary["kind"] == "summary" and "test_loss" not in summary


def test_trials_match_their_runs(searched):
  plan, _ = searched
  for trial in TrialStore(plan).trials()[:2]:
    workdir = plan.folder(trial.number)
    config, summary = read_config(workdir), metric_writer.read(workdir)[-1]
    assert config.optimizer.name == "sgd"
    assert config.seed == trial.point["seed"]
    assert trial.state == trials.COMPLETE and trial.num_epochs == 2
    assert "seed" in repr(trial) and "FrozenTrial" not in repr(trial)
    assert trial.best_epoch == summary["best_epoch"]
    assert trial.score == pytest.approx(summary["validation_accuracy"])
    assert trial.best_epoch
    assert trial.losses[trial.best_epoch] == pytest.approx(
      summary["validation_loss"], rel=1e-5
    )


def test_a_non_finite_loss_fails_its_trial_alone(searched):
  plan, _ = searched
  failed = TrialStore(plan).trials()[2:]
  assert [trial.state for trial in failed] == [trials.FAILED] * 2
  assert "non-finite" in failed[0].reason and "\n" not in failed[0].reason


def test_finished_trials_are_not_trained_again(searched, monkeypatch, capsys):
  plan, _ = searched
  monkeypatch.setattr(
    train_loop, "train_and_evaluate", lambda *_: pytest.fail("trained again")
  )
  search.search(plan)
  out = capsys.readouterr().out
  assert "4 trials finished before, 0 unfinished" in out


def test_the_table_has_the_best_first(searched):
  plan, _ = searched
  with open(plan.workdir / "report" / "trials.csv") as f:
    rows = list(csv.DictReader(f))
  assert [row["state"] for row in rows] == ["complete"] * 2 + ["failed"] * 2
  scores = [float(row["validation accuracy"].split()[0]) for row in rows[:2]]
  assert scores == sorted(scores, reverse=True)
  assert (
    "non-finite" in rows[2]["reason"] and rows[2]["learning_rate"] == "1e+30"
  )


def test_a_report_replaces_only_its_own_files(tmp_path, monkeypatch):
  monkeypatch.setattr(search, "work", pytest.fail)
  plan = tiny_sweep.plan(tmp_path, FIELDS)
  (plan.workdir / "report").mkdir(parents=True)
  (plan.workdir / "report" / "trials.md").write_text("mine")
  with pytest.raises(UserError, match="report holds other files"):
    search.search(plan)


def test_the_best_recipes_command_is_quoted(tmp_path):
  plan = tiny_sweep.plan(tmp_path / "my sweeps", FIELDS)
  command = best_config.command_of(plan, plan.workdir / "best_config.py")
  *_, workdir = shlex.split(command)
  assert workdir == f"--workdir={plan.workdir}/best"


def test_the_best_is_a_recipe(searched):
  plan, _ = searched
  best = trials.best_trial(TrialStore(plan).trials(), 1)
  assert best
  path = plan.workdir / "report" / "best_config.py"
  config = load_recipe(str(path))
  trained = read_config(plan.folder(best.number))
  assert configs.differences(trained, config) == []
  text = path.read_text()
  assert trials.format_score(best.score, plan.metric) in text
  assert f"config.seed = {best.point['seed']}  # searched" in text


def test_every_trial_that_fails_is_an_error(folder):
  config = tiny_sweep.config(folder)
  fields = FIELDS | {"optimizer.learning_rate": 1e30}
  plan = tiny_sweep.plan(folder / "failing", fields, config=config)
  with pytest.raises(
    UserError, match="all 2 trials failed, the first: .*non-finite"
  ):
    search.search(plan)
  fields = {"batch_size": Choice((10_000, 20_000))}
  with pytest.raises(UserError, match="batch_size="):
    search.search(tiny_sweep.plan(folder / "x", fields, config=config))


def test_weights_that_do_not_fit_fail_their_trial_alone(folder, searched):
  config = tiny_sweep.config(folder)
  with config.unlocked():
    config.init_from = str(searched[0].folder(0))
  fields = {"model.widths": Choice(((2,), (3,)))}
  plan = tiny_sweep.plan(
    folder / "unfit", fields, config=config, sampler="grid"
  )
  (first, second), page = search.search(plan)
  assert (first.state, second.state) == (trials.COMPLETE, trials.FAILED)
  assert second.reason.startswith("init_from=") and page.exists()


def test_missing_data_end_the_sweep_and_leave_the_trial_to_be_resumed(
  folder, monkeypatch
):
  config = tiny_sweep.config(folder)
  plan = tiny_sweep.plan(
    folder / "outage", {"seed": Integer(1, 3)}, config=config
  )

  def fail(config):
    raise MissingRelease("the release is not there")

  with monkeypatch.context() as patch:
    for module in (sweep_plan, worker):
      patch.setattr(module, "create_experiment", fail)
    with pytest.raises(MissingRelease, match="not there"):
      worker.work(plan)
  assert [t.state for t in TrialStore(plan).trials()] == [trials.RUNNING]
  found, _ = search.search(plan)
  assert [trial.state for trial in found] == [trials.COMPLETE] * 3


def test_trials_share_a_time_limit(folder, monkeypatch):
  config = tiny_sweep.config(folder)
  with config.unlocked():
    config.max_minutes = 1.5
  plan = tiny_sweep.plan(
    folder / "limited", {"seed": Integer(1, 9)}, config=config
  )
  now, deadlines = [0.0], []

  def train(config, workdir, after_epoch, *, deadline, evaluate_test):
    deadlines.append(deadline)
    now[0] += 60

  clock = types.SimpleNamespace(monotonic=lambda: now[0])
  monkeypatch.setattr(signals, "time", clock)
  monkeypatch.setattr(train_loop, "train_and_evaluate", train)
  monkeypatch.setattr(worker, "read_score", lambda *_: {"score": 0.5})
  monkeypatch.setattr(worker, "_describe", lambda *_: "")
  with pytest.raises(Interrupted, match="time limit") as stopped:
    search.search(plan)
  assert stopped.value.exit_code == 142
  assert deadlines == [90, 90]
  states = [trial.state for trial in TrialStore(plan).trials()]
  assert states == [trials.COMPLETE, trials.COMPLETE, trials.RUNNING]


def test_an_interrupted_trial_is_resumed(folder, monkeypatch, capsys):
  config = tiny_sweep.config(folder)
  plan = tiny_sweep.plan(
    folder / "stopped", {"seed": Integer(1, 2)}, config=config, num_trials=1
  )
  update, calls = progress.Progress.update, []

  def interrupt(self, steps):
    update(self, steps)
    calls.append(steps)
    if len(calls) == 3:  # in the second epoch of two steps
      signal.raise_signal(signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(progress.Progress, "update", interrupt)
    with pytest.raises(Interrupted, match="0000: .*"):
      worker.work(plan)
  (trial,) = TrialStore(plan).trials()
  assert trial.state == trials.RUNNING and list(trial.losses) == [1]
  capsys.readouterr()
  worker.work(plan)
  told = capsys.readouterr()
  assert "trial 0 (1 of 1) resumes after epoch 1" in told.out
  assert "resumed in epoch 2 at step 1" in told.err
  (found,) = TrialStore(plan).trials()
  assert found.state == trials.COMPLETE and found.point == trial.point

  # The same as without the interruption.
  whole = plan.configure(found.point)
  train_loop.train_and_evaluate(whole, folder / "whole", evaluate_test=False)
  assert [
    r["validation_loss"]
    for r in metric_writer.read(folder / "whole")
    if r["kind"] == "epoch"
  ] == list(found.losses.values())


def test_a_bad_trial_is_pruned_and_its_workdir_is_whole(folder, monkeypatch):
  config = tiny_sweep.config(folder)
  plan = tiny_sweep.plan(
    folder / "pruned", {"seed": Integer(1, 2)}, config=config, num_trials=1
  )
  with monkeypatch.context() as patch:
    patch.setattr(TrialStore, "should_prune", lambda self, claim: True)
    worker.work(plan)
  (pruned,) = TrialStore(plan).trials()
  assert (pruned.state, pruned.num_epochs) == (trials.PRUNED, 1)
  kinds = [record["kind"] for record in metric_writer.read(plan.folder(0))]
  assert "summary" not in kinds and kinds.count("epoch") == 1
  result = train_loop.train_and_evaluate(
    plan.configure(pruned.point), plan.folder(0)
  )
  assert result.num_epochs == 2 and result.test is not None


def test_unreported_epochs_are_reported_when_a_trial_is_resumed(
  folder, monkeypatch
):
  """A process was killed between an epoch's checkpoint and its report."""
  config = tiny_sweep.config(folder)
  plan = tiny_sweep.plan(
    folder / "untold", {"seed": Integer(1, 2)}, config=config, num_trials=1
  )
  store = TrialStore(plan)
  claim = store.claim()
  assert claim

  class Killed(Exception):
    pass

  def kill(metrics):
    raise Killed

  with pytest.raises(Killed):
    train_loop.train_and_evaluate(
      plan.configure(claim.trial.point),
      plan.folder(0),
      kill,
      evaluate_test=False,
    )
  claim.lock.release()
  assert store.trials()[0].losses == {}
  monkeypatch.setattr(TrialStore, "should_prune", lambda self, claim: True)
  monkeypatch.setattr(
    train_loop, "train_and_evaluate", lambda *_: pytest.fail("trained on")
  )
  worker.work(plan)
  (trial,) = store.trials()
  assert trial.state == trials.PRUNED and list(trial.losses) == [1]


@pytest.mark.parametrize(
  "error",
  [
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
    jax.errors.JaxRuntimeError("UNKNOWN: call failed: std::bad_alloc"),
    MemoryError("Unable to allocate 1 TiB"),
  ],
  ids=["device", "kernel", "host"],
)
def test_a_trial_without_memory_fails(folder, monkeypatch, request, error):
  plan = tiny_sweep.plan(
    folder / request.node.callspec.id,
    {"seed": Integer(1, 2)},
    config=tiny_sweep.config(folder),
    num_trials=1,
  )

  def fail(*_, **__):
    raise error

  monkeypatch.setattr(train_loop, "train_and_evaluate", fail)
  worker.work(plan)
  (trial,) = TrialStore(plan).trials()
  assert trial.state == trials.FAILED
  assert "not enough memory" in trial.reason and str(error) in trial.reason


def test_other_errors_end_the_sweep_and_leave_the_trial_to_be_resumed(
  folder, monkeypatch
):
  config = tiny_sweep.config(folder)
  plan = tiny_sweep.plan(
    folder / "full", {"seed": Integer(1, 2)}, config=config
  )

  def fail(*_, **__):
    raise UserError("no space left on the disk")

  with monkeypatch.context() as patch:
    patch.setattr(train_loop, "train_and_evaluate", fail)
    with pytest.raises(UserError, match="no space left"):
      worker.work(plan)
  assert [t.state for t in TrialStore(plan).trials()] == [trials.RUNNING]


@pytest.mark.parametrize(
  ("metric", "num"),
  [
    ("validation_accuracy", 1),
    ("validation_accuracy", 9),
    ("validation_loss", 9),
  ],
)
def test_a_report_of_any_trials(tmp_path, metric, num):
  """Of values of every kind, of trials of every state."""
  config = tiny_sweep.config(tmp_path)
  with config.unlocked():
    config.best_metric = metric
  fields = {
    "optimizer.learning_rate": LogUniform(2e-4, 5e-4),
    "optimizer.b1": Choice((0.5, 0.9)),
    "optimizer.name": Choice(("adam", "adamw")),
    "model.widths": Choice(((2,), (4,), (2, 4))),
    "batch_size": Integer(8, 14, step=2),
  }
  plan = tiny_sweep.plan(tmp_path, fields, config=config, num_trials=num)
  store = TrialStore(plan)
  states = [trials.COMPLETE, trials.PRUNED, trials.FAILED, trials.COMPLETE]
  while (claim := store.claim()) is not None:
    number = claim.trial.number
    if number == 8:
      continue  # still running
    store.report(claim, 1, 1.0 + number)
    results: dict = {"score": number / 10, "best_epoch": 1}
    if states[number % 4] == trials.FAILED:
      results["reason"] = "loss is nan"
    store.finish(claim, states[number % 4], **results)
    claim.lock.release()
  path = sweep_report.write(plan, store.trials(), tmp_path / "report")
  text = path.read_text()
  assert text.count("data:image/png;base64,") == (8 if num == 9 else 6)
  assert ("No parameter importance" in text) == (num < 9)
  best = trials.best_trial(store.trials(), plan.sign)
  assert best and best.number == (7 if metric.endswith("y") and num > 1 else 0)
  assert (tmp_path / "report" / "best_config.py").is_file()
  assert "http" not in text
  if num == 9:
    headless.check_file(path, "A sweep of leaky_cnn on synthetic_faces")
