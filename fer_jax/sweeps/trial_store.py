"""The trials of a sweep, in optuna's storage: every process has the same."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from fer_jax import config as configs
from fer_jax.errors import UserError
from fer_jax.sweeps import locks, proposals, storage, trials
from fer_jax.sweeps.plan import Plan
from fer_jax.sweeps.trials import Trial

_LOCK = ".lock"  # of the sweep and of each trial, in its folder
_STATES = {
  TrialState.COMPLETE: trials.COMPLETE,
  TrialState.PRUNED: trials.PRUNED,
  TrialState.FAIL: trials.FAILED,
  TrialState.RUNNING: trials.RUNNING,
  TrialState.WAITING: trials.RUNNING,
}


class Ledger:
  """The trials of a sweep.

  A trial is written down with all of its point at once. Its score is
  `config.best_metric`. What is told of its epochs is validation loss, turned
  round where the score is to be high, so that pruners compare it rightly.

  A process that trains a trial has the lock of its folder: a trial that is
  running and whose lock is free was interrupted, however that came about.

  Attributes:
    plan: of the sweep.
    study: optuna's.
  """

  def __init__(self, plan: Plan):
    """Opens the ledger, or begins it.

    Raises:
      UserError: it cannot be opened, or holds another sweep.
    """
    self.plan = plan
    if (plan.workdir / "config.json").exists():
      raise UserError(
        f"--workdir={plan.workdir} holds a run of its own: give another to the"
        " sweep"
      )
    try:
      plan.workdir.mkdir(parents=True, exist_ok=True)
      with self._turn(), storage.explained(plan.storage):
        self._storage = storage.open_storage(plan.storage)
        self.study = storage.open_study(self._storage, plan)
        self._study_id = self._storage.get_study_id_from_name(
          self.study.study_name
        )
        self._claim()
    except OSError as e:
      raise UserError(
        f"--workdir={plan.workdir}: {e.strerror or e}: give another"
      ) from e

  def close(self) -> None:
    """Closes what connects to the storage."""
    storage.close_storage(self._storage)

  def trials(self) -> list[Trial]:
    """All of them, by number."""
    return [self._read(one) for one in self.study.get_trials(deepcopy=False)]

  def take(self) -> tuple[Trial, locks.Lock] | None:
    """The next trial to train, and its lock; None where none is left.

    That is one that was interrupted, or a new one.
    """
    with self._turn():
      for trial in self.study.get_trials(deepcopy=False):
        if trial.state == TrialState.RUNNING and self._is_here(trial):
          lock = self._lock(trial.number)
          if lock.take(wait=False):
            # Whoever had it may have ended it meanwhile.
            current = self._find(trial.number)
            if current.state == TrialState.RUNNING:
              return self._read(current), lock
            lock.release()
      begun = self.study.get_trials(deepcopy=False)
      if len(begun) >= self.plan.goal:
        return None
      point = proposals.propose(self.plan, begun)
      template = proposals.as_trial(self.plan.space, point)
      template.set_user_attr("place", self._place)
      trial_id = self._storage.create_new_trial(self._study_id, template)
      new = self._storage.get_trial(trial_id)
      lock = self._lock(new.number)
      lock.take(wait=True)
      return self._read(new), lock

  def tell(self, number: int, epoch: int, validation_loss: float) -> None:
    """Writes down what an epoch of a trial came to."""
    if epoch not in self._find(number).intermediate_values:
      self._storage.set_trial_intermediate_value(
        self._id(number), epoch, -self.plan.sign * validation_loss
      )

  def should_prune(self, number: int) -> bool:
    """Whether a trial does so badly that it is not worth going on."""
    return self.study.pruner.prune(self.study, self._find(number))

  def end(self, number: int, state: str, **told: Any) -> Trial:
    """Ends a trial.

    Args:
      number: of it.
      state: COMPLETE, PRUNED or FAILED.
      **told: fields of `Trial`, by name.
    """
    for name, value in told.items():
      self._storage.set_trial_user_attr(self._id(number), name, value)
    ended = next(one for one, name in _STATES.items() if name == state)
    value = told["score"] if state == trials.COMPLETE else None
    self.study.tell(number, value, ended)
    return self._read(self._find(number))

  @property
  def _place(self) -> str:
    return f"{socket.gethostname()}:{self.plan.workdir.resolve()}"

  def _is_here(self, trial: FrozenTrial) -> bool:
    """Whether a trial's folder is, or was to be, in this workdir."""
    made = self.plan.folder(trial.number).is_dir()
    return made or trial.user_attrs.get("place") == self._place

  @contextlib.contextmanager
  def _turn(self) -> Iterator[None]:
    """One process at a time takes a trial."""
    with locks.waited_for(self.plan.workdir / _LOCK):
      yield

  def _lock(self, number: int) -> locks.Lock:
    folder = self.plan.folder(number)
    folder.mkdir(parents=True, exist_ok=True)
    return locks.Lock(folder / _LOCK)

  def _id(self, number: int) -> int:
    return self._storage.get_trial_id_from_study_id_trial_number(
      self._study_id, number
    )

  def _find(self, number: int) -> FrozenTrial:
    return self._storage.get_trial(self._id(number))

  def _read(self, trial: FrozenTrial) -> Trial:
    told = trial.user_attrs
    return Trial(
      number=trial.number,
      point=proposals.to_point(self.plan.space, trial.params),
      state=_STATES[trial.state],
      score=told.get("score"),
      best_epoch=told.get("best_epoch"),
      losses={
        epoch: -self.plan.sign * value
        for epoch, value in sorted(trial.intermediate_values.items())
      },
      seconds=told.get("seconds"),
      reason=told.get("reason", ""),
    )

  def _claim(self) -> None:
    """Notes what is searched, or checks that it is what was noted."""
    now = self.plan.space.describe()
    before = self.study.user_attrs
    if not self.study.get_trials(deepcopy=False):
      self.study.set_user_attr("config", configs.to_json(self.plan.config))
      self.study.set_user_attr("space", now)
      return
    old = before["space"]
    changed = [
      f"{field}: {old.get(field)} -> {now.get(field)}"
      for field in sorted(old.keys() | now.keys())
      if old.get(field) != now.get(field)
    ] or configs.differences(
      configs.from_json(before["config"]), self.plan.config
    )
    if changed:
      raise UserError(
        f"--workdir={self.plan.workdir} holds a sweep of another"
        f" {'space' if old != now else 'configuration'} ({'; '.join(changed)}):"
        " give another --workdir"
      )


def importances(ledger: Ledger) -> dict[str, float]:
  """How much of the scores' variance each field explains (fANOVA).

  Hutter et al. 2014, "An Efficient Approach for Assessing Hyperparameter
  Importance".
  """
  evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
  return optuna.importance.get_param_importances(
    ledger.study, evaluator=evaluator
  )
