"""Where optuna keeps a sweep: a journal in the workdir, or a database."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from fer_jax.errors import UserError
from fer_jax.sweeps import locks
from fer_jax.sweeps.plan import Plan

# How long a process waits for others that write to the same SQLite file.
_SQLITE_SECONDS = 60
# Trials before any is pruned, and epochs of each: in the first, BatchNorm's
# statistics are young, and the validation loss says little.
_NUM_WARMUP_TRIALS = 4
_NUM_WARMUP_EPOCHS = 1


class _Lock(JournalFileOpenLock):
  """A journal's lock; optuna's own outlives a killed process by 30 seconds."""

  def __init__(self, name: str):
    super().__init__(name)
    self._held = locks.Lock(pathlib.Path(f"{name}.lock"))

  def acquire(self) -> bool:
    """Waits for the lock."""
    return self._held.take(wait=True)

  def release(self) -> None:
    """Gives it back."""
    self._held.release()


def open_storage(name: str) -> BaseStorage:
  """Opens a storage, or makes it.

  Args:
    name: a URL of SQLAlchemy's, "sqlite:///sweep.db", or the file of a journal.
  """
  if "://" in name:
    options = {}
    if name.startswith("sqlite"):
      options = {"connect_args": {"timeout": _SQLITE_SECONDS}}
    return RDBStorage(name, engine_kwargs=options)
  lock = _Lock(name) if locks.HAS_LOCKS else JournalFileOpenLock(name)
  _mend(pathlib.Path(name), lock)
  return JournalStorage(JournalFileBackend(name, lock))


def open_study(storage: BaseStorage, plan: Plan) -> optuna.Study:
  """Opens optuna's study of a sweep, or begins it.

  One storage may hold several sweeps: each has its workdir's name.
  """
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  shared = "://" in plan.storage
  return optuna.create_study(
    study_name=plan.workdir.resolve().name if shared else "sweep",
    storage=storage,
    direction=plan.direction,
    load_if_exists=True,
    pruner=_pruner(plan),
  )


def close_storage(storage: BaseStorage) -> None:
  """Closes what connects to a database."""
  storage.remove_session()
  if isinstance(storage, RDBStorage):
    storage.engine.dispose()


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
  """Turns what a storage raises into one line; drivers have errors each."""
  try:
    yield
  except UserError:
    raise
  except Exception as e:
    reason = " ".join(str(e).split())[:200] or type(e).__name__
    raise UserError(f"--storage={name}: {reason}") from e


def _pruner(plan: Plan) -> optuna.pruners.BasePruner:
  if plan.pruner == "median":
    return optuna.pruners.MedianPruner(
      n_startup_trials=_NUM_WARMUP_TRIALS,
      n_warmup_steps=_NUM_WARMUP_EPOCHS + 1,  # steps are epochs, from 1
    )
  if plan.pruner == "hyperband":
    return optuna.pruners.HyperbandPruner(
      min_resource=min(_NUM_WARMUP_EPOCHS + 1, plan.most_epochs),
      max_resource=plan.most_epochs,
    )
  return optuna.pruners.NopPruner()


def _mend(path: pathlib.Path, lock: JournalFileOpenLock) -> None:
  """Cuts off a line that a full disk or a power cut left half written.

  The next line would be written behind it, and neither could be read.
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
