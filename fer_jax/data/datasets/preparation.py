"""Preparation of a dataset: array_record files from a release, once.

A preparation is complete or absent: it is written to a folder beside its place
under a lock and moved there at the end, so that two runs at once prepare one
after the other. What an interrupted run has written completely is used by the
next.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import tensorflow_datasets as tfds

from fer_jax import console, files
from fer_jax.data.datasets import record_writer
from fer_jax.data.datasets.source_files import SourceFiles, read_record
from fer_jax.errors import UserError
from fer_jax.text_output import printable

if TYPE_CHECKING:
  from fer_jax.data.datasets.builder import FaceBuilder


def prepare(builder: FaceBuilder, verify: bool = False) -> None:
  """Prepares a dataset unless it is prepared already.

  Args:
    builder: reads the release.
    verify: compares the contents of the release's files with those that the
      prepared data were made from, and not only their sizes and times.

  Raises:
    UserError: the release is missing or wrong, or the folder of prepared data
      cannot be written.
  """
  source = builder.source()
  try:
    if not _is_prepared(builder, source, verify):
      builder.check_data_dir()
      with _lock(Path(builder.data_dir).parent):
        # Another run may have prepared while this one waited.
        if not _is_prepared(builder, source, verify):
          _prepare_into_place(builder, source)
  except OSError as e:
    raise UserError(
      f"cannot prepare dataset {builder.name} in {str(builder.data_dir)!r}: "
      f"{printable(str(e))}; free some space there, or set dataset.data_dir to"
      " another folder that can be written"
    ) from e


def _is_prepared(
  builder: FaceBuilder, source: SourceFiles | None, verify: bool
) -> bool:
  metadata = Path(builder.data_dir) / "metadata.json"
  recorded = read_record(metadata)
  if recorded is None or not _is_complete(builder):
    return False
  if source is None:
    return True
  if not source.matches(recorded, verify):
    return False
  status = source.status()
  if source.files and recorded["status"] != status["status"]:
    # The same contents in other files: remembered, so as not to read them
    # again. It does not matter if that fails.
    with contextlib.suppress(OSError), files.atomic_write(metadata) as draft:
      content = json.loads(metadata.read_text())
      content["source"] = recorded | status
      draft.write_text(json.dumps(content))
  return True


def _is_complete(builder: FaceBuilder) -> bool:
  """Returns whether all files of prepared data are there."""
  folder = Path(builder.data_dir)
  try:
    splits = json.loads((folder / "dataset_info.json").read_text())["splits"]
    counts = {split["name"]: len(split["shardLengths"]) for split in splits}
  except (OSError, ValueError, KeyError, TypeError):
    return False
  names = [
    name
    for split, count in counts.items()
    for name in _shard_names(_template(builder, split), count)
  ]
  return all((folder / name).is_file() for name in names)


def _template(
  builder: FaceBuilder, split: str
) -> tfds.core.ShardedFileTemplate:
  return tfds.core.ShardedFileTemplate(
    data_dir=Path(builder.data_dir),
    dataset_name=builder.name,
    split=split,
    filetype_suffix="array_record",
  )


def _shard_names(
  template: tfds.core.ShardedFileTemplate, count: int
) -> list[str]:
  return [
    str(template.relative_filepath(shard_index=i, num_shards=count))
    for i in range(count)
  ]


def _prepare_into_place(
  builder: FaceBuilder, source: SourceFiles | None
) -> None:
  """Prepares beside the data's place, then moves there; under the lock."""
  place = Path(builder.data_dir)
  place.parent.mkdir(parents=True, exist_ok=True)
  status = source.status() if source else {}
  key = hashlib.sha256(json.dumps(status).encode()).hexdigest()[:12]
  staging = place.parent / f"incomplete.{key}"
  for left_over in place.parent.glob("incomplete.*"):
    if left_over != staging:
      shutil.rmtree(left_over, ignore_errors=True)
  started = time.monotonic()
  staged = builder.reopened(data_dir=str(staging))
  staged.data_root = builder.data_root  # also tells where releases lie
  if source and (now := staged.source()) and now.status() != status:
    raise UserError(
      f"{printable(staged.origin())} changed while this run waited for another"
      " that prepared it: run it again"
    )
  resumes = False
  try:
    _write(staged, source)
    replaces = place.exists()
    if replaces:
      place.rename(staging / "replaced")
    Path(staged.data_dir).rename(place)
  except BaseException as e:
    # Complete shards are used by the next run, where this one was interrupted
    # or the disk is full.
    if isinstance(e, OSError) or not isinstance(e, Exception):
      resumes = any(Path(staged.data_dir).glob("*.progress.json"))
    raise
  finally:
    if not resumes:
      shutil.rmtree(staging, ignore_errors=True)
  seconds = time.monotonic() - started
  origin = f" from {printable(staged.origin())}" if staged.origin() else ""
  instead = ", replacing a copy of other files" if replaces else ""
  console.say(
    f"prepared {builder.name}{origin} in {place} ({seconds:.1f} s){instead}"
  )
  staged.after_preparation()


def _write(builder: FaceBuilder, source: SourceFiles | None) -> None:
  """Reads the release and writes the splits and their metadata."""
  status = source.status() if source else {}
  folder = Path(builder.data_dir)
  folder.mkdir(parents=True, exist_ok=True)
  infos, fingerprints = [], {}
  for split, examples in builder.read_examples().items():
    written = record_writer.write_split(
      folder,
      split,
      examples,
      builder.info.features.serialize_example,
      f"{builder.name}: writing {split}",
    )
    if written:
      lengths = [shard.num_examples for shard in written.shards]
      size = sum(shard.num_bytes for shard in written.shards)
      template = _template(builder, split)
      infos.append(tfds.core.SplitInfo(split, lengths, size, template))
      fingerprints[split] = written.fingerprint
  if not infos:
    origin = f" in {printable(builder.origin())}" if builder.origin() else ""
    raise UserError(f"there are no examples of dataset {builder.name}{origin}")
  for info in infos:
    names = _shard_names(info.filename_template, len(info.shard_lengths))
    record_writer.finish(folder, info.name, names)
  builder.info.set_splits(tfds.core.splits.SplitDict(infos))
  # Read after the examples: a wrong release is refused without reading it all.
  record = source.record() if source else {}
  if any(record[name] != value for name, value in status.items()):
    raise UserError(
      f"{printable(builder.origin())} changed while dataset {builder.name} was"
      " prepared from it: prepare it again"
    )
  builder.info.metadata.update(
    source=record, fingerprints=fingerprints, **builder.extra_metadata()
  )
  builder.info.write_to_directory(folder)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
  """Holds `folder` against other processes; the lock of a dead one is free."""
  folder.mkdir(parents=True, exist_ok=True)
  lock = filelock.FileLock(folder / ".lock")
  try:
    lock.acquire(timeout=0)
  except filelock.Timeout:
    console.say(f"waiting for another run that prepares in {folder}")
    lock.acquire()
  try:
    yield
  finally:
    lock.release()
