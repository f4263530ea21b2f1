"""Trials as processes share them: taken once, gone on with, never repeated."""

import json

import pytest
import tiny_sweep

from fer_jax.errors import UserError
from fer_jax.sweeps import trials
from fer_jax.sweeps.space import Choice, Integer, LogUniform
from fer_jax.sweeps.trial_store import Ledger, importances

LEWIS = {
  "optimizer.learning_rate": Choice((1e-4, 5e-4, 1e-3, 3e-3, 5e-3)),
  "optimizer.weight_decay": Choice((0.0, 1e-4)),
}


def complete(ledger: Ledger, score) -> list[dict]:
  """Ends every trial with the score of its point; returns the points."""
  points = []
  while (taken := ledger.take()) is not None:
    trial, lock = taken
    points.append(trial.point)
    ledger.end(
      trial.number,
      trials.COMPLETE,
      score=score(trial.point),
      best_epoch=1,
      seconds=1.0,
    )
    lock.release()
  return points


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_a_space_that_ends_is_gone_through_once(tmp_path, sampler):
  ledger = Ledger(tiny_sweep.plan(tmp_path, LEWIS, sampler=sampler))
  points = complete(ledger, lambda p: p["optimizer.learning_rate"])
  everything = list(ledger.plan.space.points())
  assert len(points) == 10 and all(p in points for p in everything)
  if sampler == "grid":
    assert points == everything
  best = trials.best(ledger.trials(), 1)
  assert best is not None and best.score == 5e-3
  shares = importances(ledger)
  assert list(shares) == list(LEWIS) and sum(shares.values()) == pytest.approx(
    1
  )


def test_what_is_drawn_depends_on_the_seed_alone(tmp_path):
  fields = {"optimizer.learning_rate": LogUniform(1e-5, 1e-1)}
  runs = []
  for name in "ab":
    plan = tiny_sweep.plan(tmp_path / name, fields, num_trials=8)
    runs.append(complete(Ledger(plan), lambda p: -p[next(iter(p))]))
  assert runs[0] == runs[1] and len(runs[0]) == 8
  plan = tiny_sweep.plan(tmp_path / "c", fields, num_trials=1)
  with plan.config.unlocked():
    plan.config.seed = 1
  assert complete(Ledger(plan), lambda p: 0.0) != runs[0][:1]


def test_a_bayesian_search_learns(tmp_path):
  fields = {"seed": Integer(0, 999)}
  plan = tiny_sweep.plan(tmp_path, fields, num_trials=40)
  seeds = [p["seed"] for p in complete(Ledger(plan), lambda p: p["seed"])]
  assert sum(seeds[20:]) / 20 > 750


def test_values_that_json_lacks_come_back(tmp_path):
  fields = {
    "model.widths": Choice(((2,), (2, 4))),
    "model.slope": Choice((None, 0.1)),
  }
  plan = tiny_sweep.plan(tmp_path, fields, sampler="grid")
  complete(Ledger(plan), lambda p: 0.0)
  assert [t.point for t in Ledger(plan).trials()] == list(plan.space.points())


def test_a_trial_is_one_processs_until_that_ends(tmp_path):
  plan = tiny_sweep.plan(tmp_path, LEWIS, num_trials=2)
  one, other = Ledger(plan), Ledger(plan)
  first, second = one.take(), other.take()
  assert first and second
  assert [first[0].number, second[0].number] == [0, 1]
  assert first[0].point != second[0].point
  assert one.take() is None and other.take() is None
  one.tell(0, 1, 2.5)
  first[1].release()  # as the end of a process does
  again = other.take()
  assert again and again[0].number == 0
  assert again[0].point == first[0].point and again[0].losses == {1: 2.5}
  other.end(0, trials.FAILED, reason="a reason")
  again[1].release()
  assert one.take() is None
  assert [t.state for t in one.trials()] == [trials.FAILED, trials.RUNNING]
  assert one.trials()[0].reason == "a reason"


def test_a_trial_of_another_machine_is_left_to_it(tmp_path):
  """One whose folder is not here, since workdirs are not shared."""
  storage = f"sqlite:///{tmp_path}/shared.db"
  here, there = (
    Ledger(tiny_sweep.plan(tmp_path / n, LEWIS, storage=storage, num_trials=2))
    for n in ("here", "there")
  )
  taken = there.take()
  assert taken
  taken[1].release()
  new = here.take()
  assert new and new[0].number == 1
  new[1].release()
  here.close()
  there.close()


def test_pruning_compares_validation_losses(tmp_path):
  plan = tiny_sweep.plan(tmp_path, LEWIS, pruner="median")
  ledger = Ledger(plan)
  for loss in (1.0, 1.1, 1.2, 1.3):
    trial, lock = ledger.take()  # type: ignore[misc]
    for epoch in (1, 2):
      ledger.tell(trial.number, epoch, loss)
      assert not ledger.should_prune(trial.number)
    ledger.end(trial.number, trials.COMPLETE, score=0.5)
    lock.release()
  trial, lock = ledger.take()  # type: ignore[misc]
  for epoch, loss, bad in ((1, 9.0, False), (2, 1.1, False), (3, 0.5, False)):
    ledger.tell(trial.number, epoch, loss)
    assert ledger.should_prune(trial.number) == bad
  lock.release()
  worse, lock = ledger.take()  # type: ignore[misc]
  assert worse.number == trial.number  # gone on with
  ledger.end(worse.number, trials.COMPLETE, score=0.6)
  lock.release()
  worse, lock = ledger.take()  # type: ignore[misc]
  ledger.tell(worse.number, 2, 1.25)
  assert ledger.should_prune(worse.number)
  assert ledger.end(worse.number, trials.PRUNED, score=0.1).state == "pruned"
  lock.release()


def test_hyperband_prunes(tmp_path):
  plan = tiny_sweep.plan(tmp_path, {"seed": Integer(0, 15)}, pruner="hyperband")
  with plan.config.unlocked():
    plan.config.num_epochs = 9
  ledger, pruned = Ledger(plan), 0
  while (taken := ledger.take()) is not None:
    trial, lock = taken
    state = trials.COMPLETE
    for epoch in range(1, 9):
      ledger.tell(trial.number, epoch, trial.point["seed"] / epoch)
      if ledger.should_prune(trial.number):
        state = trials.PRUNED
        pruned += 1
        break
    ledger.end(trial.number, state, score=0.5)
    lock.release()
  assert 0 < pruned < 16


def test_another_sweep_is_refused(tmp_path):
  plan = tiny_sweep.plan(tmp_path, LEWIS)
  taken = Ledger(plan).take()
  assert taken
  taken[1].release()
  less = {"optimizer.learning_rate": LEWIS["optimizer.learning_rate"]}
  with pytest.raises(UserError, match="another space .optimizer.weight_decay"):
    Ledger(tiny_sweep.plan(tmp_path, less))
  other = tiny_sweep.config(tmp_path)
  with other.unlocked():
    other.batch_size = 7
  with pytest.raises(UserError, match="configuration .batch_size: 14 -> 7"):
    Ledger(tiny_sweep.plan(tmp_path, LEWIS, config=other))
  with other.unlocked():
    other.batch_size, other.log_every_steps = 14, 1
  Ledger(tiny_sweep.plan(tmp_path, LEWIS, config=other, sampler="grid"))


def test_a_sweep_that_has_no_trial_can_be_another(tmp_path):
  Ledger(tiny_sweep.plan(tmp_path, LEWIS))
  ledger = Ledger(tiny_sweep.plan(tmp_path, {"seed": Integer(0, 3)}))
  assert len(complete(ledger, lambda p: 0.0)) == 4


def test_a_half_written_line_is_cut_off(tmp_path):
  plan = tiny_sweep.plan(tmp_path, LEWIS, num_trials=3)
  taken = Ledger(plan).take()
  assert taken
  taken[1].release()
  journal = tmp_path / "sweep" / "trials.journal"
  with open(journal, "a") as file:
    file.write('{"op_code": 4, "wor')
  assert len(complete(Ledger(plan), lambda p: 0.0)) == 3
  for line in journal.read_text().splitlines():
    json.loads(line)


@pytest.mark.parametrize(
  ("storage", "message"),
  [
    ("nonsense://x", "--storage=nonsense://x: "),
    ("sqlite:////nowhere/at/all.db", "unable to open database file"),
    ("/nowhere/at/all.journal", "--storage=/nowhere"),
  ],
)
def test_a_storage_that_cannot_be_used_is_one_line(tmp_path, storage, message):
  with pytest.raises(UserError, match=message) as raised:
    Ledger(tiny_sweep.plan(tmp_path, LEWIS, storage=storage))
  assert "\n" not in str(raised.value)


def test_a_runs_workdir_is_refused(tmp_path):
  (tmp_path / "sweep").mkdir()
  (tmp_path / "sweep" / "config.json").touch()
  with pytest.raises(UserError, match="holds a run of its own"):
    Ledger(tiny_sweep.plan(tmp_path, LEWIS))
