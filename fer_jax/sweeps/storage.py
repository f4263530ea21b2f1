"""Where Optuna stores a sweep: a journal in the workdir, or a database."""

import contextlib
import functools
import os
import pathlib
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

import filelock
import optuna
import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import (
  BaseStorage,
  JournalStorage,
  RDBStorage,
  RetryHeartbeatStaleTrialCallback,
)
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from fer_jax.errors import UserError, one_line
from fer_jax.sweeps import trials
from fer_jax.sweeps.plan import Plan

P = ParamSpec("P")
R = TypeVar("R")

# Workers on a database record a heartbeat this often; a trial without one for
# the grace period is handed on to another worker.
HEARTBEAT_SECONDS = 30
GRACE_SECONDS = 120
# How long a worker retries while the database does not answer.
OUTAGE_SECONDS = 300
_SQLITE_TIMEOUT_SECONDS = 60  # for other processes that write to the file
# Trials before any is pruned, and epochs of each: BatchNorm's statistics are
# young in the first, and its validation loss says little.
_NUM_WARMUP_TRIALS = 4
_NUM_WARMUP_EPOCHS = 1
_JOURNAL_START = b'{"op_code":'  # of the first line that Optuna writes


class _JournalLock(JournalFileOpenLock):
  """A journal's lock that ends with its process, however that ends."""

  def __init__(self, path: str):
    super().__init__(path)
    self._file_lock = filelock.FileLock(f"{path}.lock")

  def acquire(self) -> bool:
    """Waits for the lock."""
    self._file_lock.acquire()
    return True

  def release(self) -> None:
    """Releases the lock."""
    self._file_lock.release()


def open_storage(name: str) -> BaseStorage:
  """Opens a storage, or creates it.

  Args:
    name: a URL that SQLAlchemy takes, such as "sqlite:///sweep.db" and
      "postgresql://USER@HOST/NAME", or the path of a journal file.
  """
  if "://" not in name:
    lock = _JournalLock(name)
    path = pathlib.Path(name)
    _check_journal(path)
    _cut_incomplete_line(path, lock)
    return JournalStorage(JournalFileBackend(name, lock))
  connect_args = {}
  if name.startswith("sqlite"):
    connect_args = {"timeout": _SQLITE_TIMEOUT_SECONDS}
  if name.startswith("postgresql://"):  # else the driver depends on SQLAlchemy
    name = name.replace("postgresql://", "postgresql+psycopg://", 1)
  with without_experimental_warnings():
    return RDBStorage(
      name,
      engine_kwargs={"connect_args": connect_args, "pool_pre_ping": True},
      heartbeat_interval=HEARTBEAT_SECONDS,
      grace_period=GRACE_SECONDS,
      heartbeat_stale_trial_callback=retry_callback(),
    )


def open_study(storage: BaseStorage, plan: Plan) -> optuna.Study:
  """Opens Optuna's study of a sweep, or creates it.

  A database may hold several sweeps: each has the name of its workdir.
  """
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  return optuna.create_study(
    study_name=plan.workdir.resolve().name
    if "://" in plan.storage
    else "sweep",
    storage=storage,
    direction=plan.direction,
    load_if_exists=True,
    sampler=optuna.samplers.RandomSampler(),  # `sampling` chooses the points.
    pruner=_pruner(plan),
  )


def retry_callback() -> Callable[[optuna.Study, FrozenTrial], None]:
  """Returns what adds a trial of a dead worker again, to be resumed.

  One whose workers keep dying is not added again.
  """
  with without_experimental_warnings():
    retry = RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=True)

  def retry_some(study: optuna.Study, trial: FrozenTrial) -> None:
    if trials.starts(trial) < trials.MAX_STARTS:
      retry(study, trial)

  return retry_some


@contextlib.contextmanager
def heartbeats(storage: BaseStorage, trial_id: int) -> Iterator[None]:
  """Records heartbeats of a trial while entered, where the storage has them.

  Optuna's own thread ends at the first error; this one outlives a restart of
  the database.
  """
  if not isinstance(storage, RDBStorage):
    yield
    return
  stop = threading.Event()

  def record() -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
      with contextlib.suppress(StorageInternalError, SQLAlchemyError):
        storage.record_heartbeat(trial_id)

  storage.record_heartbeat(trial_id)
  thread = threading.Thread(target=record, daemon=True)
  thread.start()
  try:
    yield
  finally:
    stop.set()
    thread.join()


@contextlib.contextmanager
def one_at_a_time(
  path: pathlib.Path, storage: BaseStorage, study_name: str
) -> Iterator[None]:
  """Excludes the other workers of a sweep while entered.

  Args:
    path: the lock file, for workers that share the workdir.
    storage: PostgreSQL excludes workers on machines without that workdir too.
    study_name: of the sweep.
  """
  with contextlib.ExitStack() as stack:
    stack.enter_context(filelock.FileLock(path))
    if isinstance(storage, RDBStorage):
      if storage.engine.dialect.name == "postgresql":
        connection = stack.enter_context(storage.engine.begin())
        lock = sqlalchemy.text("select pg_advisory_xact_lock(:key)")
        connection.execute(lock, {"key": zlib.crc32(study_name.encode())})
    yield


def survives_outages(
  method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[Any, P], R]:
  """Repeats a method while the database does not answer, as in a restart.

  A journal that cannot be written, on a full disk, is a UserError at once.

  Args:
    method: of an object with the attribute `plan`.
  """

  @functools.wraps(method)
  def repeated(store: Any, *args: P.args, **kwargs: P.kwargs) -> R:
    deadline, wait = time.monotonic() + OUTAGE_SECONDS, 0.2
    while True:
      try:
        return method(store, *args, **kwargs)
      except OSError as e:
        raise UserError(
          f"cannot write {e.filename or store.plan.storage}"
          f" ({e.strerror or e}): fix the cause and rerun the command to resume"
        ) from e
      except (StorageInternalError, SQLAlchemyError) as e:
        if time.monotonic() > deadline:
          raise UserError(
            f"the database has not answered for {OUTAGE_SECONDS} s"
            f" ({one_line(e)}): fix the cause and rerun the command to"
            " resume"
          ) from e
      time.sleep(wait)
      wait = min(2 * wait, 5.0)

  return repeated


@contextlib.contextmanager
def errors_in_one_line(name: str) -> Iterator[None]:
  """Raises what a storage raises as UserError; every driver has its errors."""
  try:
    yield
  except UserError:
    raise
  except Exception as e:
    hint = ""
    if isinstance(e, ModuleNotFoundError) and e.name == "psycopg":
      hint = ": pip install 'fer_jax[postgresql]'"
    raise UserError(f"storage={name}: {one_line(e)}{hint}") from e


@contextlib.contextmanager
def without_experimental_warnings() -> Iterator[None]:
  """Silences Optuna's warnings that an interface may change."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", ExperimentalWarning)
    yield


@contextlib.contextmanager
def without_heartbeat_warning() -> Iterator[None]:
  """Silences the advice to leave heartbeats to Optuna's own loop."""
  with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "Heartbeat of storage")
    yield


def close_storage(storage: BaseStorage) -> None:
  """Closes the connections to a database."""
  storage.remove_session()
  if isinstance(storage, RDBStorage):
    storage.engine.dispose()


def _pruner(plan: Plan) -> optuna.pruners.BasePruner:
  if plan.pruner == "median":
    return optuna.pruners.MedianPruner(
      n_startup_trials=_NUM_WARMUP_TRIALS,
      n_warmup_steps=_NUM_WARMUP_EPOCHS + 1,  # steps are epochs, from 1
    )
  if plan.pruner == "hyperband":
    return optuna.pruners.HyperbandPruner(
      min_resource=min(_NUM_WARMUP_EPOCHS + 1, plan.max_epochs),
      max_resource=plan.max_epochs,
    )
  return optuna.pruners.NopPruner()


def _check_journal(path: pathlib.Path) -> None:
  """Checks that a file, if there is one, is a journal, or the start of one.

  Raises:
    UserError: it is another file, which must stay as it is.
  """
  if not path.is_file():
    return
  with open(path, "rb") as file:
    start = file.read(len(_JOURNAL_START))
  if not _JOURNAL_START.startswith(start):
    raise UserError(
      f"storage={path} is not a journal of a sweep: give another file; an"
      " SQLite database is storage=sqlite:///FILE"
    )


def _cut_incomplete_line(path: pathlib.Path, lock: _JournalLock) -> None:
  """Cuts off a line that a full disk or a power cut left incomplete.

  The next line would be appended to it, and neither could be read.
  """
  if not path.is_file():
    return
  lock.acquire()
  try:
    with open(path, "rb+") as file:
      size = file.seek(0, os.SEEK_END)
      file.seek(max(size - 2**20, 0))
      tail = file.read()
      if tail and not tail.endswith(b"\n"):
        file.truncate(size - len(tail) + tail.rfind(b"\n") + 1)
  finally:
    lock.release()
