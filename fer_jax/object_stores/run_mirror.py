"""A run whose workdir is on an object store: a local copy, kept in step.

Training reads and writes the copy as it would any folder: `metrics.jsonl` is
appended to, checkpoints are renamed when they are complete. A thread uploads
what has changed every few seconds, so that training does not wait for the
store; the end of the run does. The order makes what is on the store a run that
can be resumed at any moment: the metrics, then the best checkpoint, then the
latest one, each complete or ignored; deletions last.
"""

import contextlib
import errno
import itertools
import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from fer_jax import checksums
from fer_jax.errors import Interrupted, UserError
from fer_jax.object_stores import lease, scratch, whole_folders
from fer_jax.object_stores.objects import ObjectFolder, StoreError
from fer_jax.object_stores.urls import is_url
from fer_jax.text_output import SafeStream

UPLOAD_SECONDS = 10.0  # between two looks at what has changed
_FINAL_TRIES = 3
_MAX_SNAPSHOTS = 500
# Where complete checkpoints lie, in the order in which they are uploaded.
_PARENTS = ("checkpoints/best", "checkpoints")
Version = tuple[int, int]  # of a file: its size and time
Identity = tuple[int, int]  # of a folder: its inode, and when it was renamed
_NO_CHECKPOINT = re.compile(r"best$|\..*|.*\.orbax-checkpoint-tmp.*")


@contextlib.contextmanager
def opened(workdir: Path) -> Iterator[Path]:
  """Yields a run's workdir as a folder of this machine.

  Args:
    workdir: a folder, which is yielded as it is, or a URL, whose run is copied
      to a temporary folder. Changes are uploaded until the end of the block; no
      other process may write there meanwhile.

  Raises:
    UserError: another process is training there.
    StoreError: the store cannot be read or written.
  """
  if not is_url(workdir):
    yield workdir
    return
  remote = ObjectFolder(workdir)
  with contextlib.ExitStack() as stack:
    held = stack.enter_context(lease.held(remote))
    local = stack.enter_context(scratch.folder()) / "run"
    mirror = _Mirror(remote, local, held)
    mirror.download()
    stack.enter_context(mirror.uploading())
    stack.enter_context(named(local, remote.url))
    yield local


@contextlib.contextmanager
def named(local: Path, url: str) -> Iterator[None]:
  """Makes errors name the URL instead of its local copy."""
  try:
    yield
  except (UserError, Interrupted) as e:
    e.args = (str(e).replace(str(local), url), *e.args[1:])
    raise


class _Mirror:
  """Copies a run between a store and a local folder."""

  def __init__(self, remote: ObjectFolder, local: Path, held: lease.Lease):
    self._remote, self._local, self._lease = remote, local, held
    self._snapshot = local.with_name("snapshot")
    self._uploaded: dict[str, Version] = {}
    # Complete on the store: name -> the local folder that it is a copy of.
    self._checkpoints: dict[str, Identity] = {}
    self._left_over: list[str] = []  # incomplete there
    self._end = threading.Event()

  def download(self) -> None:
    """Copies what a run resumes from; unfinished uploads are ignored."""
    self._local.mkdir(parents=True)
    names = self._remote.list()
    wanted = [n for n in names if n in ("config.json", "metrics.jsonl")]
    for parent in _PARENTS:
      complete, incomplete = whole_folders.find(names, parent)
      for folder, objects in complete.items():
        if not _NO_CHECKPOINT.match(folder):
          self._checkpoints[f"{parent}/{folder}"] = (0, 0)
          if not folder.startswith("damaged-"):
            wanted += objects
      self._left_over += [
        f"{parent}/{name}"
        for name in incomplete
        if not _NO_CHECKPOINT.match(name)
      ]
    try:
      self._remote.download(wanted, self._local)
    except FileNotFoundError as e:
      raise StoreError(
        f"cannot read {self._remote.url}: {e} was deleted meanwhile; run the"
        " command again"
      ) from e
    self._checkpoints |= _complete_checkpoints(self._local)

  @contextlib.contextmanager
  def uploading(self) -> Iterator[None]:
    """Uploads changes in a thread, and the last ones at the end."""
    thread = threading.Thread(
      target=self._keep_uploading, name="upload", daemon=True
    )
    thread.start()
    try:
      yield
    finally:
      self._end.set()
      thread.join()
      self._upload_last()

  def _keep_uploading(self) -> None:
    warned = ""
    while not self._end.wait(UPLOAD_SECONDS):
      try:
        self.upload()
      except Exception as e:  # What is missing is uploaded the next time.
        if str(e) != warned:
          warned = str(e)
          SafeStream(sys.stderr).write(
            f"warning: {warned.rstrip('.')}; training continues, and the"
            " upload is tried again\n"
          )

  def _upload_last(self) -> None:
    folder = self._local.parent
    with scratch.kept(folder):
      for attempt in range(_FINAL_TRIES):
        try:
          return self.upload()
        except (UserError, OSError) as e:
          if attempt + 1 == _FINAL_TRIES:
            raise StoreError(
              f"{e}. The run is kept in {self._local}: use that folder as"
              " workdir, or copy it to another URL"
            ) from e

  def upload(self) -> None:
    """Uploads what has changed since the last time.

    Raises:
      UserError: another process has taken the workdir over.
      StoreError: the store cannot be written.
      OSError: the local copy cannot be read.
    """
    self._lease.check()
    try:
      files, checkpoints = self._take_snapshot()
      self._remote.upload(files, self._snapshot)
      self._uploaded |= files
      for name in self._left_over:
        if name not in checkpoints:
          whole_folders.delete(self._remote / name)
      self._left_over = []
      for name, identity in checkpoints.items():
        if self._checkpoints.get(name) != identity:
          whole_folders.upload(self._snapshot / name, self._remote / name)
          self._checkpoints[name] = identity
      for name in self._replaced(checkpoints):
        whole_folders.delete(self._remote / name)
        del self._checkpoints[name]
    finally:
      shutil.rmtree(self._snapshot, ignore_errors=True)

  def _replaced(self, checkpoints: Iterable[str]) -> list[str]:
    """Returns the checkpoints of the store that have newer ones here.

    If the local copy was removed, there are none, and nothing is deleted.
    """
    parents = {name.rpartition("/")[0] for name in checkpoints}
    return [
      name
      for name in self._checkpoints.keys() - set(checkpoints)
      if "/damaged-" not in name and name.rpartition("/")[0] in parents
    ]

  def _take_snapshot(self) -> tuple[dict[str, Version], dict[str, Identity]]:
    """Links everything to another folder, where it cannot vanish.

    Returns:
      The files to upload; the checkpoints, in the order of `_PARENTS`.
    """
    for attempt in itertools.count(1):
      shutil.rmtree(self._snapshot, ignore_errors=True)
      try:
        checkpoints = _complete_checkpoints(self._local)
        for name, identity in checkpoints.items():
          if self._checkpoints.get(name) != identity:
            _link(self._local / name, self._snapshot / name)
        return self._copy_changed_files(), checkpoints
      except FileNotFoundError:
        # A checkpoint was deleted meanwhile: there is a newer one.
        if attempt == _MAX_SNAPSHOTS:
          raise
        time.sleep(0.01)
    raise AssertionError("unreachable")

  def _copy_changed_files(self) -> dict[str, Version]:
    changed = {}
    for name in whole_folders.file_names(self._local):
      top, path = name.partition("/")[0], self._local / name
      if top == "checkpoints" or path.name.startswith("."):
        continue
      stat = path.stat()  # Before copying: what is appended is copied again.
      version = stat.st_size, stat.st_mtime_ns
      if self._uploaded.get(name) != version:
        (self._snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, self._snapshot / name)
        changed[name] = version
    return changed


def _link(source: Path, target: Path) -> None:
  """Makes another folder of the same files.

  Raises:
    FileNotFoundError: files were deleted meanwhile.
  """
  names = whole_folders.file_names(source)
  for name in names:
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    try:
      os.link(source / name, target / name)
    except FileNotFoundError:
      raise
    except OSError:  # A file system without links.
      shutil.copyfile(source / name, target / name)
  if source.name.isdigit():
    missing = set(checksums.names(target)) - set(names)
    if missing:
      raise FileNotFoundError(errno.ENOENT, "deleted", str(source))


def _complete_checkpoints(local: Path) -> dict[str, Identity]:
  """Returns the names of all complete checkpoints, in the order of `_PARENTS`.

  The latest ones are listed first, so that no best one is missing which these
  refer to.
  """
  found: dict[str, dict[str, Identity]] = {}
  for parent in reversed(_PARENTS):
    found[parent] = {}
    folder = local / parent
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
      if path.is_dir() and not _NO_CHECKPOINT.match(path.name):
        stat = path.stat()
        found[parent][f"{parent}/{path.name}"] = stat.st_ino, stat.st_ctime_ns
  return {name: i for p in _PARENTS for name, i in found[p].items()}
