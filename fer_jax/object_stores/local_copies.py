"""Copies of parts of an object store, for as long as they are needed."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fer_jax import output_folder
from fer_jax.object_stores import scratch, whole_folders
from fer_jax.object_stores.objects import ObjectFolder, StoreError
from fer_jax.object_stores.run_mirror import named
from fer_jax.object_stores.urls import is_url

_MAX_READS = 5  # of a checkpoint that a running training replaces


@contextlib.contextmanager
def checkpoint(workdir: Path, which: str) -> Iterator[Path]:
  """Yields a folder that holds a checkpoint of a run.

  Args:
    workdir: a folder, which is yielded as it is, or a URL: then a temporary
      folder is, with `checkpoints` and in there the newest complete checkpoint;
      without `checkpoints` if the URL has none at all.
    which: "best" or "latest".

  Raises:
    StoreError: the store cannot be read.
  """
  if not is_url(workdir):
    yield workdir
    return
  remote = ObjectFolder(workdir)
  with scratch.folder() as folder, named(folder, remote.url):
    for attempt in range(_MAX_READS):
      names = remote.list()
      if any(name.startswith("checkpoints/") for name in names):
        (folder / "checkpoints" / "best").mkdir(parents=True, exist_ok=True)
      parent = "checkpoints/best" if which == "best" else "checkpoints"
      found, _ = whole_folders.find(names, parent)
      steps = sorted(int(name) for name in found if name.isdigit())
      try:
        remote.download(found[str(steps[-1])] if steps else [], folder)
        break
      except FileNotFoundError as e:
        if attempt + 1 == _MAX_READS:
          raise StoreError(f"cannot read {remote.url}: {e} was deleted") from e
    yield folder


@contextlib.contextmanager
def output(folder: Path) -> Iterator[Path]:
  """Yields a folder to write to; at the end its files are where they belong.

  Args:
    folder: of this machine, which is yielded as it is, or a URL: then a
      temporary folder is, with what the URL holds. New and changed files are
      uploaded if the block does not fail.

  Raises:
    StoreError: the store cannot be read or written.
  """
  if not is_url(folder):
    yield folder
    return
  remote = ObjectFolder(folder)
  with scratch.folder() as made, named(made, remote.url):
    remote.download(remote.list(), made)
    output_folder.restore_times(made)
    before = _versions(made)
    yield made
    after = _versions(made)
    remote.upload([n for n in after if after[n] != before.get(n)], made)


def _versions(folder: Path) -> dict[str, tuple[int, int]]:
  stats = {
    name: (folder / name).stat() for name in whole_folders.file_names(folder)
  }
  return {name: (s.st_size, s.st_mtime_ns) for name, s in stats.items()}
