"""The trials of a sweep in Optuna's study, shared by all workers."""

import contextlib
import dataclasses
import socket
from collections.abc import Iterator
from typing import Any

import filelock
import optuna
from ml_collections import ConfigDict
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from fer_jax import config as configs
from fer_jax.data.splits import differences
from fer_jax.errors import UserError
from fer_jax.sweeps import sampling, storage
from fer_jax.sweeps.plan import Plan
from fer_jax.sweeps.trials import (
  FAILED,
  STATES,
  Trial,
  one_more_start,
  read_trials,
)
from fer_jax.training import run_data

_LOCK = ".lock"  # of the sweep, in its workdir
_TRIAL_LOCK = ".worker.lock"  # of each trial, in its folder


class HandedOn(Exception):
  """Another worker has taken over a trial: this one seemed dead."""


@dataclasses.dataclass(frozen=True, eq=False)
class Claim:
  """A trial that this worker trains.

  Attributes:
    trial: as it was when it was claimed.
    live: Optuna's handle of it.
    lock: of its folder; the end of the process releases it too.
  """

  trial: Trial
  live: optuna.Trial
  lock: filelock.BaseFileLock


class TrialStore:
  """Optuna's study of a sweep: hands out trials and records their results.

  A trial's value is `config.best_metric` of its best epoch. Its intermediate
  values, which pruners compare, are validation losses, negated where the value
  is to be high.

  A worker that trains a trial holds the lock of its folder, and records
  heartbeats in a database. A running trial whose lock is free, or whose
  heartbeats have stopped, is marked as failed and, as Optuna does, added again
  with all it has; the next worker resumes it.

  Attributes:
    plan: of the sweep.
    study: Optuna's.
  """

  def __init__(self, plan: Plan):
    """Opens the study, or creates it.

    Raises:
      UserError: it cannot be opened, or belongs to another sweep.
    """
    self.plan = plan
    if (plan.workdir / "config.json").exists():
      raise UserError(
        f"workdir={plan.workdir} holds a training run: give the sweep another"
      )
    try:
      plan.workdir.mkdir(parents=True, exist_ok=True)
      with (
        filelock.FileLock(plan.workdir / _LOCK),
        storage.errors_in_one_line(plan.storage),
      ):
        self._storage = storage.open_storage(plan.storage)
        with contextlib.ExitStack() as opened:
          opened.callback(self.close)
          self.study = storage.open_study(self._storage, plan)
          self._check_or_record_plan()
          opened.pop_all()
    except OSError as e:
      reason = e.strerror or e
      raise UserError(f"workdir={plan.workdir}: {reason}: give another") from e

  def close(self) -> None:
    """Closes the connections to the storage."""
    storage.close_storage(self._storage)

  @storage.survives_outages
  def trials(self) -> list[Trial]:
    """Returns all trials, by number."""
    return read_trials(self.plan, self.study.get_trials(deepcopy=False))

  @storage.survives_outages
  def claim(self) -> Claim | None:
    """Claims the next trial: one that was interrupted, or a new one.

    Returns:
      The trial, with its lock held; None if none is left.
    """
    with self._one_at_a_time():
      self._add_dead_trials_again()
      stored = self.study.get_trials(deepcopy=False)
      if not any(trial.state == TrialState.WAITING for trial in stored):
        if len(self.trials()) >= self.plan.goal:
          return None
        self.study.add_trial(sampling.next_trial(self.plan, stored))
      live = self._ask()
      live.set_user_attr("place", self._place)
      trial = next(t for t in self.trials() if t.stored.number == live.number)
      live.set_user_attr("starts", one_more_start(trial.stored))
      lock = self._lock(trial)
      lock.acquire()
      return Claim(trial, live, lock)

  def release(self, claim: Claim) -> None:
    """Gives a trial up in order: finished, failed or interrupted."""
    with contextlib.suppress(Exception):  # It may be another's by now.
      claim.live.set_user_attr("starts", {})
    claim.lock.release()

  def check_data_of_trials(self) -> None:
    """Compares the data that trials had with the data there are now.

    Raises:
      UserError: they differ.
    """
    known = self.study.user_attrs.get("data", {})
    configurations = {}
    for trial in self.trials():
      config = self.plan.configure(trial.point)
      configurations[run_data.selection(config)] = config
    for key in configurations.keys() & known.keys():
      if data := run_data.describe(configurations[key]):
        self.check_data(configurations[key], data)

  @storage.survives_outages
  def check_data(self, config: ConfigDict, data: run_data.Description) -> None:
    """Compares the data of a trial with those of others; the first records it.

    Args:
      config: the trial's configuration.
      data: what it is about to be trained on.

    Raises:
      UserError: a trial that selects the same data had other data.
    """
    key = run_data.selection(config)
    with self._one_at_a_time():
      known = self.study.user_attrs.get("data", {})
      if key not in known:
        self.study.set_user_attr("data", known | {key: data})
      elif changed := differences(known[key], data):
        raise UserError(
          f"the data of dataset {config.dataset.name} are not those that the"
          f" sweep started with ({'; '.join(changed)}): use the same data, or"
          " another workdir"
        )

  @contextlib.contextmanager
  def heartbeats(self, claim: Claim) -> Iterator[None]:
    """Shows others that the trial's worker is alive, while entered."""
    with storage.heartbeats(self._storage, claim.trial.stored._trial_id):
      yield

  @storage.survives_outages
  def report(self, claim: Claim, epoch: int, validation_loss: float) -> None:
    """Records the validation loss of an epoch.

    Raises:
      HandedOn: another worker has taken over the trial.
    """
    value = -self.plan.sign * validation_loss
    try:
      self._storage.set_trial_intermediate_value(
        claim.trial.stored._trial_id, epoch, value
      )
    except UpdateFinishedTrialError as e:
      raise HandedOn from e

  @storage.survives_outages
  def should_prune(self, claim: Claim) -> bool:
    """Returns whether a trial is too bad to be continued."""
    current = self._storage.get_trial(claim.trial.stored._trial_id)
    return self.study.pruner.prune(self.study, current)

  @storage.survives_outages
  def finish(self, claim: Claim, state: str, **results: Any) -> Trial:
    """Ends a trial.

    Args:
      claim: of the trial.
      state: COMPLETE, PRUNED or FAILED.
      **results: fields of `Trial`, by name.

    Raises:
      HandedOn: another worker has taken over the trial.
    """
    final = next(one for one, name in STATES.items() if name == state)
    try:
      for name, value in results.items():
        claim.live.set_user_attr(name, value)
      value = results["score"] if final == TrialState.COMPLETE else None
      self.study.tell(claim.live, value, final)
    except UpdateFinishedTrialError:
      pass  # By another worker, or by a call whose answer was lost.
    current = self.trials()[claim.trial.number]
    if current.stored.number != claim.live.number or current.state != state:
      raise HandedOn
    return current

  @contextlib.contextmanager
  def _one_at_a_time(self) -> Iterator[None]:
    with storage.one_at_a_time(
      self.plan.workdir / _LOCK, self._storage, self.study.study_name
    ):
      yield

  def _ask(self) -> optuna.Trial:
    """Makes the waiting trial a running one."""
    with storage.without_heartbeat_warning():
      return self.study.ask()

  def _add_dead_trials_again(self) -> None:
    """Adds trials again whose workers died; needs `_one_at_a_time`."""
    with storage.without_experimental_warnings():
      optuna.storages.fail_stale_trials(self.study)  # those without heartbeats
    retry = storage.retry_callback()
    for trial in self.trials():
      if trial.stored.state == TrialState.RUNNING and self._is_dead(trial):
        self.study.tell(trial.stored.number, state=TrialState.FAIL)
        retry(self.study, trial.stored)
      elif trial.state == FAILED and not trial.reason and self._is_here(trial):
        retry(self.study, trial.stored)  # A worker died between these lines.

  def _is_dead(self, trial: Trial) -> bool:
    """Returns whether a running trial of this workdir has no worker."""
    if not self._is_here(trial):
      return False
    lock = self._lock(trial)
    try:
      lock.acquire(blocking=False)
    except filelock.Timeout:
      return False
    lock.release()
    # Its worker may have finished it meanwhile.
    return self.trials()[trial.number].stored.state == TrialState.RUNNING

  @property
  def _place(self) -> str:
    return f"{socket.gethostname()}:{self.plan.workdir.resolve()}"

  def _is_here(self, trial: Trial) -> bool:
    """Returns whether a trial's folder is, or would be, in this workdir."""
    created = self.plan.folder(trial.number).is_dir()
    return created or trial.stored.user_attrs.get("place") == self._place

  def _lock(self, trial: Trial) -> filelock.BaseFileLock:
    folder = self.plan.folder(trial.number)
    folder.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(folder / _TRIAL_LOCK)

  def _check_or_record_plan(self) -> None:
    """Records what is searched, or checks that it is what was recorded."""
    space, recorded = self.plan.space.describe(), self.study.user_attrs
    if not self.study.get_trials(deepcopy=False):
      self.study.set_user_attr("config", configs.to_json(self.plan.config))
      self.study.set_user_attr("space", space)
      return
    if "space" not in recorded or "config" not in recorded:
      raise UserError(
        f"storage={self.plan.storage} holds a study"
        f" {self.study.study_name!r} that is not a sweep of fer_jax: give the"
        " sweep a workdir of another name, or another storage"
      )
    old = recorded["space"]
    changed = [
      f"{field}: {old.get(field)} -> {space.get(field)}"
      for field in sorted(old.keys() | space.keys())
      if old.get(field) != space.get(field)
    ] or configs.differences(
      configs.from_json(recorded["config"]), self.plan.config
    )
    if changed:
      raise UserError(
        f"workdir={self.plan.workdir} holds a sweep of another"
        f" {'space' if old != space else 'configuration'}"
        f" ({'; '.join(changed)}): give another workdir"
      )
