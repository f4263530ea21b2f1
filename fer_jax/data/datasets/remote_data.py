"""Prepared data on an object store: `data_dir=s3://BUCKET/data`.

Training reads examples at random, thousands per second, which a store does not
serve. So prepared data are copied whole to the user's cache folder
(`XDG_CACHE_HOME`, or ~/.cache) where they are not there yet, and what was
prepared here is copied to the store. Their checksums are verified after every
download.
"""

import contextlib
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from fer_jax import checksums, console, files
from fer_jax.errors import UserError
from fer_jax.object_stores import lease, whole_folders
from fer_jax.object_stores.objects import ObjectFolder
from fer_jax.object_stores.urls import is_url, to_path

if TYPE_CHECKING:
  from fer_jax.data.datasets.builder import FaceBuilder

_METADATA = "metadata.json"


def local_folder(data_dir: str) -> str:
  """Returns the folder in which a `data_dir` is used: itself, or its copy.

  Raises:
    UserError: it is a URL of another kind.
  """
  if not is_url(data_dir):
    return str(to_path(data_dir)) if data_dir else ""
  url = str(to_path(data_dir)).rstrip("/")
  name = hashlib.sha256(url.encode()).hexdigest()[:16]
  return str(files.cache_folder() / "data" / name)


def download(builder: "FaceBuilder", data_dir: str) -> None:
  """Copies prepared data here, unless they are here or not on the store.

  Args:
    builder: of the dataset, in `local_folder(data_dir)`.
    data_dir: the URL; nothing is done for a local folder.

  Raises:
    StoreError: the store cannot be read.
    UserError: a downloaded file is damaged, or there is no space for it.
  """
  if not is_url(data_dir):
    return
  place, remote = _places(builder, data_dir)
  theirs = remote.read(_METADATA)
  if theirs is None or _same_data(theirs, _read(place)):
    return
  sizes = {
    name: size
    for name, size in remote.list().items()
    if not name.startswith(f"{lease.FOLDER}/")
  }
  if whole_folders.INCOMPLETE in sizes:
    return
  gigabytes = sum(sizes.values()) / 1e9
  console.say(f"copying {gigabytes:,.2f} GB from {remote.url} to {place}")
  incoming = place.with_name(f"{place.name}.download")
  try:
    place.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{incoming}.lock"):
      if _same_data(theirs, _read(place)):
        return  # Another process has copied them meanwhile.
      shutil.rmtree(incoming, ignore_errors=True)
      remote.download(sizes, incoming)
      if damage := checksums.find_damage(incoming):
        name = damage.path.relative_to(incoming)
        raise UserError(
          f"{remote.url}/{name} is damaged ({damage.reason}): delete"
          f" {remote.url}, and the data are prepared again"
        )
      shutil.rmtree(place, ignore_errors=True)
      incoming.rename(place)
  except OSError as e:
    raise UserError(
      f"cannot copy {remote.url} to {place}: {e.strerror or e}; set"
      " XDG_CACHE_HOME to a folder with enough space"
    ) from e
  finally:
    shutil.rmtree(incoming, ignore_errors=True)


def upload(builder: "FaceBuilder", data_dir: str) -> None:
  """Copies prepared data to the store, unless they are there.

  Args:
    builder: of the dataset, in `local_folder(data_dir)`, prepared.
    data_dir: the URL; nothing is done for a local folder.

  Raises:
    StoreError: the store cannot be read or written.
  """
  if not is_url(data_dir):
    return
  place, remote = _places(builder, data_dir)
  ours = _read(place)
  is_whole = remote.read(whole_folders.INCOMPLETE) is None
  if is_whole and _same_data(ours, remote.read(_METADATA)):
    return
  # What another process prepares from the same release is the same.
  with contextlib.suppress(lease.HeldError), lease.held(remote):
    console.say(f"copying {place} to {remote.url}")
    checksums.write(place)
    whole_folders.upload(place, remote)


def _places(builder: "FaceBuilder", data_dir: str) -> tuple[Path, ObjectFolder]:
  """Returns the folder of a dataset's data here and on the store."""
  place = Path(builder.data_dir)
  relative = place.relative_to(Path(local_folder(data_dir)))
  return place, ObjectFolder(data_dir) / relative.as_posix()


def _read(place: Path) -> bytes | None:
  try:
    return (place / _METADATA).read_bytes()
  except OSError:
    return None


def _same_data(one: bytes | None, other: bytes | None) -> bool:
  """Returns whether two metadata.json are of the same examples."""
  return one is not None and _contents(one) == _contents(other or b"null")


def _contents(metadata: bytes) -> Any:
  """Returns what describes the data, without times of the release's files."""
  try:
    fields = json.loads(metadata)
    return fields["fingerprints"], fields["class_names"]
  except (ValueError, KeyError, TypeError):
    return None
