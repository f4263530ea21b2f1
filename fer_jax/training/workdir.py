"""A workdir belongs to one run, and to one process at a time."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.errors import UserError

try:
  import fcntl
except ImportError:  # Windows
  fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def claim(
  workdir: pathlib.Path, config: ConfigDict, write: bool
) -> Iterator[None]:
  """Makes a workdir this run's while entered: writes config.json, or checks it.

  Args:
    workdir: where the run goes.
    config: of the run.
    write: whether this process writes.

  Raises:
    UserError: it holds a run of another configuration, another process is
      training there, or it cannot be written.
  """
  with contextlib.ExitStack() as stack:
    try:
      if write:
        workdir.mkdir(parents=True, exist_ok=True)
        stack.enter_context(_locked(workdir))
      _write_or_check(workdir, config, write)
    except (OSError, ValueError) as e:
      raise UserError(f"workdir {workdir}: {e}: give another --workdir") from e
    yield


def read_config(workdir: pathlib.Path) -> ConfigDict:
  """The configuration a workdir's run was started with.

  Raises:
    OSError: there is none, or it cannot be read.
    ValueError: the file is broken.
  """
  fields = json.loads((workdir / "config.json").read_text())
  return configs.from_json(fields)


def _write_or_check(
  workdir: pathlib.Path, config: ConfigDict, write: bool
) -> None:
  path = workdir / "config.json"
  if path.exists():
    changed = configs.differences(read_config(workdir), config)
    if changed:
      raise UserError(
        f"{workdir} holds a run of another configuration"
        f" ({'; '.join(changed)}): give another --workdir, or the"
        " configuration it has"
      )
  elif write:
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(configs.to_json(config), indent=2) + "\n")
    draft.replace(path)


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
  """Holds the folder's lock, which ends with the process however it ends."""
  if fcntl is None:
    yield
    return
  folder = os.open(workdir, os.O_RDONLY)
  try:
    try:
      fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(
        f"another process is training in {workdir}: wait for it, or give"
        " another --workdir"
      ) from None
    except OSError:
      pass  # A file system without locks.
    yield
  finally:
    os.close(folder)
