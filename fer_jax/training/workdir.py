"""A workdir holds one run, and one process at a time trains in it."""

import contextlib
import errno
import json
import os
import pathlib
from collections.abc import Iterator

import filelock
from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.errors import UserError
from fer_jax.files import atomic_write
from fer_jax.object_stores.objects import read_file

CONFIG = "config.json"
_LOCK = ".lock"


@contextlib.contextmanager
def claim(workdir: pathlib.Path, config: ConfigDict) -> Iterator[None]:
  """Locks a workdir, and writes config.json or checks that it fits.

  A workdir without a checkpoint takes any configuration: nothing is lost.

  Args:
    workdir: where the run is written.
    config: the run's configuration.

  Raises:
    UserError: the workdir holds a run of another configuration, another process
      is training in it, or it cannot be written.
  """
  with contextlib.ExitStack() as stack:
    try:
      workdir.mkdir(parents=True, exist_ok=True)
      stack.enter_context(_locked(workdir))
      _write_or_check(workdir, config)
    except (OSError, ValueError) as e:
      raise UserError(f"workdir {workdir}: {e}: use another workdir") from e
    yield


def read_config(workdir: pathlib.Path) -> ConfigDict:
  """Returns the configuration that a workdir's run was started with.

  Args:
    workdir: a folder or a URL, as `urls.to_path` returns it.

  Raises:
    OSError: it is missing or cannot be read.
    StoreError: the object store cannot be read.
    ValueError: the file is corrupt.
  """
  try:
    if (content := read_file(workdir / CONFIG)) is None:
      reason = os.strerror(errno.ENOENT)
      raise FileNotFoundError(errno.ENOENT, reason, str(workdir / CONFIG))
    fields = json.loads(content)
    if not isinstance(fields, dict):
      raise ValueError("it is not a JSON object")
    return configs.from_json(fields)
  except ValueError as e:
    raise ValueError(f"{CONFIG} cannot be read: {e}") from e


def _write_or_check(workdir: pathlib.Path, config: ConfigDict) -> None:
  if (workdir / CONFIG).exists() and _holds_checkpoints(workdir):
    changed = configs.differences(
      read_config(workdir), config, configs.EXTENDABLE_FIELDS
    )
    if changed:
      raise UserError(
        f"{workdir} holds a run of another configuration"
        f" ({'; '.join(changed)}): use another workdir, or the configuration of"
        f" that run (only {', '.join(configs.EXTENDABLE_FIELDS)} may change)"
      )
  else:
    write_config(workdir, config)


def _holds_checkpoints(workdir: pathlib.Path) -> bool:
  """Whether anything was saved there, damaged or not."""
  checkpoints = workdir / "checkpoints"
  folders = [*checkpoints.glob("*"), *checkpoints.glob("best/*")]
  return any(f.name.isdigit() or "damaged" in f.name for f in folders)


def write_config(workdir: pathlib.Path, config: ConfigDict) -> None:
  """Writes config.json, atomically."""
  with atomic_write(workdir / CONFIG) as draft:
    draft.write_text(json.dumps(configs.to_json(config), indent=2) + "\n")


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
  """Holds the workdir's lock, which the system releases with the process."""
  lock = filelock.FileLock(workdir / _LOCK)
  try:
    lock.acquire(timeout=0)
  except filelock.Timeout:
    raise UserError(
      f"another process is training in {workdir}: wait for it, or use another"
      " workdir"
    ) from None
  except NotImplementedError:  # A file system without locks.
    yield
    return
  try:
    yield
  finally:
    lock.release()
