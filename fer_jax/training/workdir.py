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
_WRITTEN = ("metrics.jsonl", "curves.png")  # replaced when a run starts


@contextlib.contextmanager
def claim(workdir: pathlib.Path, config: ConfigDict) -> Iterator[None]:
  """Locks a workdir, and writes config.json or checks that it fits.

  A workdir without a checkpoint takes any configuration: nothing is lost. One
  with checkpoints but no config.json is checked when they are restored.

  Args:
    workdir: where the run is written.
    config: the run's configuration.

  Raises:
    UserError: the workdir holds a run of another configuration or files that
      are not of a run, another process is training in it, or it cannot be
      written.
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
    if "model" not in fields:
      raise ValueError("it is not the configuration of a run")
    return configs.from_json(fields)
  except ValueError as e:
    raise ValueError(f"{CONFIG} cannot be read: {e}") from e


def _write_or_check(workdir: pathlib.Path, config: ConfigDict) -> None:
  if (workdir / CONFIG).exists():
    before = read_config(workdir)  # Raises if it is another program's.
    if _holds_checkpoints(workdir):
      check_extends(before, config, str(workdir))
      return
  elif _holds_checkpoints(workdir):
    return
  elif others := [name for name in _WRITTEN if (workdir / name).is_file()]:
    raise UserError(
      f"{workdir} has {' and '.join(others)} but no {CONFIG}, so it is no run:"
      f" use another workdir, or remove {'it' if len(others) == 1 else 'them'}"
    )
  write_config(workdir, config)


def check_extends(before: ConfigDict, config: ConfigDict, place: str) -> None:
  """Checks that a run may be resumed with a configuration.

  Args:
    before: the configuration of the run.
    config: the new one.
    place: what holds the run, for the message.

  Raises:
    UserError: a field differs that may not change.
  """
  # A checkpoint knows the contents of its teacher, wherever that is now.
  allowed = (*configs.EXTENDABLE_FIELDS, "loss.teacher")
  if changed := configs.differences(before, config, allowed):
    raise UserError(
      f"{place} holds a run of another configuration"
      f" ({'; '.join(changed)}): use another workdir, or the configuration of"
      f" that run (of the fields that affect results, only"
      f" {', '.join(configs.EXTENDABLE_FIELDS)} may change)"
    )


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
