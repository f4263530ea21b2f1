"""Writing of prepared examples: array_record files, shard by shard.

A shard that is complete stays where the preparation is interrupted, and the
next preparation from the same files continues after it.
"""

import dataclasses
import json
from collections.abc import (
  Callable,
  Iterable,
  Iterator,
  Mapping,
  Sequence,
  Sized,
)
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from array_record.python import array_record_module

from fer_jax import console, files
from fer_jax.data.fingerprints import example_digest, fingerprint_of

# Image uint8 [h w c], target, row in the release.
Example = tuple[np.ndarray, Any, int]
_SHARD_BYTES = 128 << 20


@runtime_checkable
class Resumable(Protocol):
  """Examples that can be read from any of their positions on."""

  def __len__(self) -> int:
    """Returns the number of positions."""
    ...

  def read(self, start: int) -> Iterator[tuple[int, Example]]:
    """Yields the position after each example, and the example."""
    ...

  def state(self) -> Any:
    """Returns what `restore` needs, in JSON's types."""
    ...

  def restore(self, state: Any) -> None:
    """Restores the state of an interrupted preparation."""
    ...


@dataclasses.dataclass
class Shard:
  """A complete file.

  Attributes:
    num_examples: examples in it.
    num_bytes: size of the examples.
    position: position in the source behind its last example.
  """

  num_examples: int
  num_bytes: int
  position: int


@dataclasses.dataclass(frozen=True)
class WrittenSplit:
  """The shards of a split, and the fingerprint of its examples."""

  shards: list[Shard]
  fingerprint: str


def write_split(
  folder: Path,
  split: str,
  examples: Iterable[Example] | Resumable,
  serialize: Callable[[Mapping[str, Any]], bytes],
  description: str,
) -> WrittenSplit | None:
  """Writes the shards of a split; `finish` gives them their names.

  Args:
    folder: where its files go.
    split: its name.
    examples: in order.
    serialize: makes a record of `image`, `target` and `row`.
    description: of the progress bar.

  Returns:
    What was written; None where there are no examples.

  Raises:
    OSError: the folder cannot be written.
  """
  shards: list[Shard] = []
  digests: list[bytes] = []
  start, total = 0, None
  if isinstance(examples, Resumable):
    shards, digests = _restore(folder, split, examples)
    start = shards[-1].position if shards else 0
    total, numbered = len(examples), examples.read(start)
  else:
    total = len(examples) if isinstance(examples, Sized) else None
    numbered = ((i, example) for i, example in enumerate(examples, 1))
  iterator = console.progress(numbered, description, total=total, start=start)
  while shard := _write_shard(
    _shard_path(folder, split, len(shards)), iterator, serialize, digests
  ):
    shards.append(shard)
    if isinstance(examples, Resumable):
      _save(folder, split, shards, digests, examples.state())
  return WrittenSplit(shards, fingerprint_of(digests)) if shards else None


def finish(folder: Path, split: str, names: Sequence[str]) -> None:
  """Names the shards of a split, when all splits are complete.

  Args:
    folder: where its files are.
    split: its name.
    names: of its shards, in order.
  """
  for index, name in enumerate(names):
    _shard_path(folder, split, index).rename(folder / name)
  for file in folder.glob(f"{split}.progress.*"):
    file.unlink()


def _shard_path(folder: Path, split: str, index: int) -> Path:
  return folder / f"{split}.{index}"


def _write_shard(
  path: Path,
  examples: Iterator[tuple[int, Example]],
  serialize: Callable[[Mapping[str, Any]], bytes],
  digests: list[bytes],
) -> Shard | None:
  """Writes examples until the shard is full; None where there are none."""
  shard, writer = Shard(0, 0, 0), None
  try:
    for position, (image, target, row) in examples:
      if writer is None:
        # Groups of one record can be read at random without decoding others.
        writer = array_record_module.ArrayRecordWriter(
          str(path), "group_size:1"
        )
      record = serialize({"image": image, "target": target, "row": row})
      writer.write(record)
      digests.append(example_digest(image, target))
      shard.num_examples += 1
      shard.num_bytes += len(record)
      shard.position = position
      if shard.num_bytes >= _SHARD_BYTES:
        break
    if writer is not None:
      writer.close()
  except RuntimeError as e:  # the writer's, such as a full disk
    raise OSError(str(e).partition(";")[0]) from e
  return shard if writer is not None else None


def _restore(
  folder: Path, split: str, examples: Resumable
) -> tuple[list[Shard], list[bytes]]:
  """Returns the complete shards of an interrupted preparation."""
  try:
    progress = json.loads((folder / f"{split}.progress.json").read_text())
    shards = [Shard(**shard) for shard in progress["shards"]]
    content = (folder / f"{split}.progress.digests").read_bytes()
  except (OSError, ValueError, TypeError, KeyError):
    return [], []
  count = sum(shard.num_examples for shard in shards)
  paths = [_shard_path(folder, split, index) for index in range(len(shards))]
  if not all(path.is_file() for path in paths) or len(content) < 16 * count:
    return [], []
  examples.restore(progress["state"])
  return shards, [content[16 * i : 16 * (i + 1)] for i in range(count)]


def _save(
  folder: Path,
  split: str,
  shards: list[Shard],
  digests: list[bytes],
  state: Any,
) -> None:
  with files.atomic_write(folder / f"{split}.progress.digests") as temporary:
    temporary.write_bytes(b"".join(digests))
  progress = {"shards": [dataclasses.asdict(s) for s in shards], "state": state}
  with files.atomic_write(folder / f"{split}.progress.json") as temporary:
    temporary.write_text(json.dumps(progress))
