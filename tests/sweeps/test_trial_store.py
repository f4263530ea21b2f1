"""Trials as workers share them: claimed once, resumed, never repeated."""

import errno
import json

import optuna
import pytest
import tiny_sweep
from optuna.storages.journal import JournalFileBackend

from fer_jax.errors import UserError
from fer_jax.sweeps import trials
from fer_jax.sweeps.space import Choice, Integer, LogUniform
from fer_jax.sweeps.storage import close_storage, open_storage
from fer_jax.sweeps.trial_store import HandedOn, TrialStore

LEWIS = {
  "optimizer.learning_rate": Choice((1e-4, 5e-4, 1e-3, 3e-3, 5e-3)),
  "optimizer.weight_decay": Choice((0.0, 1e-4)),
}


def complete(store: TrialStore, score) -> list[dict]:
  """Ends every trial with the score of its point; returns the points."""
  points = []
  while (claim := store.claim()) is not None:
    point = claim.trial.point
    points.append(point)
    store.finish(
      claim, trials.COMPLETE, score=score(point), best_epoch=1, seconds=1.0
    )
    claim.lock.release()
  return points


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_every_point_of_a_finite_space_is_tried_once(tmp_path, sampler):
  store = TrialStore(tiny_sweep.plan(tmp_path, LEWIS, sampler=sampler))
  points = complete(store, lambda p: p["optimizer.learning_rate"])
  everything = list(store.plan.space.points())
  assert len(points) == 10 and all(p in points for p in everything)
  if sampler == "grid":
    assert points == everything
  best = trials.best_trial(store.trials(), 1)
  assert best is not None and best.score == 5e-3


def test_drawing_depends_on_the_seed_alone(tmp_path):
  fields = {"optimizer.learning_rate": LogUniform(1e-5, 1e-1)}
  runs = []
  for name in "ab":
    plan = tiny_sweep.plan(tmp_path / name, fields, num_trials=8)
    runs.append(complete(TrialStore(plan), lambda p: -p[next(iter(p))]))
  assert runs[0] == runs[1] and len(runs[0]) == 8
  plan = tiny_sweep.plan(tmp_path / "c", fields, num_trials=1)
  with plan.config.unlocked():
    plan.config.seed = 1
  assert complete(TrialStore(plan), lambda p: 0.0) != runs[0][:1]


def test_bayesian_search_learns(tmp_path):
  fields = {"seed": Integer(0, 999)}
  plan = tiny_sweep.plan(tmp_path, fields, num_trials=40)
  seeds = [p["seed"] for p in complete(TrialStore(plan), lambda p: p["seed"])]
  assert sum(seeds[20:]) / 20 > 750


def test_values_that_json_lacks_come_back(tmp_path):
  fields = {
    "model.widths": Choice(((2,), (2, 4))),
    "model.slope": Choice((None, 0.1)),
  }
  plan = tiny_sweep.plan(tmp_path, fields, sampler="grid")
  complete(TrialStore(plan), lambda p: 0.0)
  assert [t.point for t in TrialStore(plan).trials()] == list(
    plan.space.points()
  )


def test_a_trial_belongs_to_one_worker_until_that_ends(tmp_path):
  plan = tiny_sweep.plan(tmp_path, LEWIS, num_trials=2)
  one, other = TrialStore(plan), TrialStore(plan)
  first, second = one.claim(), other.claim()
  assert first and second
  assert [first.trial.number, second.trial.number] == [0, 1]
  assert first.trial.point != second.trial.point
  assert one.claim() is None and other.claim() is None
  one.report(first, 1, 2.5)
  first.lock.release()  # as the end of a process does
  again = other.claim()
  assert again and again.trial.number == 0
  assert again.trial.point == first.trial.point
  assert again.trial.losses == {1: 2.5}
  with pytest.raises(HandedOn):
    one.report(first, 2, 2.0)
  with pytest.raises(HandedOn):
    one.finish(first, trials.COMPLETE, score=1.0)
  other.finish(again, trials.FAILED, reason="a reason")
  again.lock.release()
  assert one.claim() is None
  assert [t.state for t in one.trials()] == [trials.FAILED, trials.RUNNING]
  assert one.trials()[0].reason == "a reason"


@pytest.mark.parametrize("database", [False, True])
def test_a_trial_that_kills_its_workers_fails(tmp_path, database):
  place = {"storage": f"sqlite:///{tmp_path}/s.db"} if database else {}
  plan = tiny_sweep.plan(tmp_path, LEWIS, num_trials=2, **place)
  for epochs in (0, 1, 1, 2, 2, 2, 2):
    store = TrialStore(plan)
    claimed = claim(store)
    assert claimed.trial.number == 0
    if claimed.trial.num_epochs < epochs:
      store.report(claimed, epochs, 2.5)
    claimed.lock.release()  # as the end of a process does
    store.close()
  store = TrialStore(plan)
  assert claim(store).trial.number == 1
  failed = store.trials()[0]
  assert failed.state == trials.FAILED and failed.num_epochs == 2
  assert "was killed 3 times within an epoch" in failed.reason
  store.close()


def test_a_trial_that_is_interrupted_does_not_fail(tmp_path):
  plan = tiny_sweep.plan(tmp_path, LEWIS, num_trials=1)
  for _ in range(5):
    store = TrialStore(plan)
    claimed = claim(store)
    assert claimed.trial.number == 0
    store.release(claimed)


def test_a_worker_that_dies_while_handing_on_loses_no_trial(tmp_path):
  """The trial was marked as failed, and not yet added again."""
  plan = tiny_sweep.plan(tmp_path, LEWIS, num_trials=1)
  store = TrialStore(plan)
  claim = store.claim()
  assert claim
  store.report(claim, 1, 2.5)
  claim.lock.release()
  store.study.tell(claim.live, state=optuna.trial.TrialState.FAIL)
  again = TrialStore(plan).claim()
  assert again and again.trial.number == 0 and again.trial.losses == {1: 2.5}
  again.lock.release()


def test_a_trial_of_another_machine_is_left_to_it(tmp_path):
  """One whose folder is not here, since workdirs are not shared."""
  storage = f"sqlite:///{tmp_path}/shared.db"
  here, there = (
    TrialStore(
      tiny_sweep.plan(tmp_path / n, LEWIS, storage=storage, num_trials=2)
    )
    for n in ("here", "there")
  )
  claim = there.claim()
  assert claim
  claim.lock.release()
  new = here.claim()
  assert new and new.trial.number == 1
  new.lock.release()
  here.close()
  there.close()


def claim(store):
  claimed = store.claim()
  assert claimed is not None
  claimed.lock.release()  # The tests of pruning have one worker.
  return claimed


def test_pruning_compares_validation_losses(tmp_path):
  store = TrialStore(tiny_sweep.plan(tmp_path, LEWIS, pruner="median"))
  for loss in (1.0, 1.1, 1.2, 1.3):
    trial = claim(store)
    for epoch in (1, 2):
      store.report(trial, epoch, loss)
      assert not store.should_prune(trial)
    store.finish(trial, trials.COMPLETE, score=0.5)
  trial = claim(store)
  for epoch, loss, bad in ((1, 9.0, False), (2, 1.1, False), (3, 0.5, False)):
    store.report(trial, epoch, loss)
    assert store.should_prune(trial) == bad
  resumed = claim(store)
  assert resumed.trial.number == trial.trial.number
  store.finish(resumed, trials.COMPLETE, score=0.6)
  worse = claim(store)
  store.report(worse, 2, 1.25)
  assert store.should_prune(worse)
  assert store.finish(worse, trials.PRUNED, score=0.1).state == "pruned"


def test_hyperband_prunes(tmp_path):
  plan = tiny_sweep.plan(tmp_path, {"seed": Integer(0, 15)}, pruner="hyperband")
  with plan.config.unlocked():
    plan.config.num_epochs = 9
  store, pruned = TrialStore(plan), 0
  while (trial := store.claim()) is not None:
    state = trials.COMPLETE
    for epoch in range(1, 9):
      store.report(trial, epoch, trial.trial.point["seed"] / epoch)
      if store.should_prune(trial):
        state = trials.PRUNED
        pruned += 1
        break
    store.finish(trial, state, score=0.5)
    trial.lock.release()
  assert 0 < pruned < 16


def test_another_sweep_is_refused(tmp_path):
  plan = tiny_sweep.plan(tmp_path, LEWIS)
  claim(TrialStore(plan))
  less = {"optimizer.learning_rate": LEWIS["optimizer.learning_rate"]}
  with pytest.raises(UserError, match="another space .optimizer.weight_decay"):
    TrialStore(tiny_sweep.plan(tmp_path, less))
  other = tiny_sweep.config(tmp_path)
  with other.unlocked():
    other.batch_size = 7
  with pytest.raises(UserError, match="configuration .batch_size: 14 -> 7"):
    TrialStore(tiny_sweep.plan(tmp_path, LEWIS, config=other))
  with other.unlocked():
    other.batch_size, other.log_every_steps = 14, 1
  TrialStore(tiny_sweep.plan(tmp_path, LEWIS, config=other, sampler="grid"))


def test_a_sweep_without_trials_can_become_another(tmp_path):
  TrialStore(tiny_sweep.plan(tmp_path, LEWIS))
  store = TrialStore(tiny_sweep.plan(tmp_path, {"seed": Integer(0, 3)}))
  assert len(complete(store, lambda p: 0.0)) == 4


def test_an_incomplete_line_is_cut_off(tmp_path):
  plan = tiny_sweep.plan(tmp_path, LEWIS, num_trials=3)
  claim(TrialStore(plan))
  journal = tmp_path / "sweep" / "trials.journal"
  with open(journal, "a") as file:
    file.write('{"op_code": 4, "wor')
  assert len(complete(TrialStore(plan), lambda p: 0.0)) == 3
  for line in journal.read_text().splitlines():
    json.loads(line)


@pytest.mark.parametrize("content", [b"SQLite format 3\0\n\xff", b"[1, 2]"])
def test_a_file_that_is_no_journal_is_left_as_it_is(tmp_path, content):
  file = tmp_path / "mine"
  file.write_bytes(content)
  with pytest.raises(UserError, match="is not a journal.*sqlite:///"):
    TrialStore(tiny_sweep.plan(tmp_path, LEWIS, storage=str(file)))
  assert file.read_bytes() == content


def test_a_study_of_another_program_is_refused(tmp_path):
  storage = f"sqlite:///{tmp_path}/theirs.db"
  theirs = open_storage(storage)
  study = optuna.create_study(storage=theirs, study_name="sweep")
  study.add_trial(optuna.trial.create_trial(value=1.0))
  close_storage(theirs)
  with pytest.raises(UserError, match="'sweep' that is not a sweep of fer_jax"):
    TrialStore(tiny_sweep.plan(tmp_path, LEWIS, storage=storage))


@pytest.mark.parametrize(
  ("storage", "message"),
  [
    ("nonsense://x", "^storage=nonsense://x: "),
    ("sqlite:////nowhere/at/all.db", "unable to open database file"),
    ("/nowhere/at/all.journal", "^storage=/nowhere"),
  ],
)
def test_an_unusable_storage_is_a_one_line_error(tmp_path, storage, message):
  with pytest.raises(UserError, match=message) as raised:
    TrialStore(tiny_sweep.plan(tmp_path, LEWIS, storage=storage))
  assert "\n" not in str(raised.value)


def test_a_full_disk_is_a_one_line_error(tmp_path, monkeypatch):
  store = TrialStore(tiny_sweep.plan(tmp_path, LEWIS))
  trial = claim(store)

  def fail(self, logs):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(JournalFileBackend, "append_logs", fail)
  message = "^cannot write .*trials.journal .No space left on device.: fix"
  for record in (
    lambda: store.report(trial, 1, 0.5),
    lambda: store.finish(trial, trials.COMPLETE, score=0.5),
    store.claim,
  ):
    with pytest.raises(UserError, match=message):
      record()


def test_the_workdir_of_a_run_is_refused(tmp_path):
  (tmp_path / "sweep").mkdir()
  (tmp_path / "sweep" / "config.json").touch()
  with pytest.raises(UserError, match="holds a training run"):
    TrialStore(tiny_sweep.plan(tmp_path, LEWIS))
