"""Training batches in an order that grain decides, and evaluation batches.

Grain's elements are whole batches: item `i` of its source is batch `i` of a
seeded permutation, since grain's cost per element would starve a GPU. With the
`in_memory` data loader a batch is indices of examples, which are gathered on
the device; with `streaming` grain's threads read these examples. Both loaders
give the same batches for the same seed, and the iterator's state is one number.
"""

import functools
from collections.abc import Iterator

import grain
import numpy as np
from jaxtyping import Int32

from fer_jax.data.parallel import num_cores
from fer_jax.data.splits import Split
from fer_jax.errors import UserError, choose, require

DATA_LOADERS = ("in_memory", "streaming")
Batch = dict[str, np.ndarray]

# Of the streaming loader. Each thread holds a batch, whatever the bytes.
_MAX_READERS = 8
_PREFETCHED_BYTES = 512 << 20


class BatchOrder:
  """A source whose item `i` is the indices of training batch `i`.

  Each epoch is a new permutation; the examples that do not fill its last batch
  are left out of that epoch, so that every batch has the same shape.

  Args:
    num_rows: number of examples of the split.
    batch_size: examples per batch, over all processes.
    num_epochs: passes over the split.
    seed: seed of the permutations.
    process_index: which part of each batch this process takes.
    process_count: number of processes that divide a batch.

  Raises:
    UserError: there are too few examples for a batch, or a batch cannot be
      divided over the processes.
  """

  def __init__(
    self,
    num_rows: int,
    batch_size: int,
    num_epochs: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
  ):
    must = f"be at most {num_rows}, the examples of the training split"
    require(batch_size <= num_rows, "batch_size", batch_size, must)
    self.num_rows = num_rows
    self.batch_size = batch_size
    self.num_epochs = num_epochs
    self.seed = seed
    self._slice = _process_slice(batch_size, process_index, process_count)
    # Grain prefetches, so that batches of two epochs alternate at a change.
    self._permutation = functools.lru_cache(maxsize=2)(self._permute)

  @property
  def steps_per_epoch(self) -> int:
    """Full batches in one pass."""
    return self.num_rows // self.batch_size

  def __len__(self) -> int:
    return self.steps_per_epoch * self.num_epochs

  def __getitem__(self, batch: int) -> Int32[np.ndarray, " b"]:
    if not 0 <= batch < len(self):
      raise IndexError(f"batch {batch} of {len(self)}")
    epoch, step = divmod(int(batch), self.steps_per_epoch)
    start = step * self.batch_size
    indices = self._permutation(epoch)[start : start + self.batch_size]
    return indices[self._slice]

  def _permute(self, epoch: int) -> Int32[np.ndarray, " n"]:
    rng = np.random.default_rng((self.seed, epoch))
    indices = rng.permutation(self.num_rows).astype(np.int32)
    indices.flags.writeable = False  # Batches are views of it.
    return indices


def training_batches(
  split: Split, order: BatchOrder, data_loader: str
) -> grain.DatasetIterator:
  """Iterates over training batches.

  Args:
    split: the examples.
    order: the indices of each batch.
    data_loader: "in_memory" or "streaming".

  Returns:
    An iterator with `get_state` and `set_state`; its elements hold `index`
    int32 `[b]` (in_memory), or `image` uint8 `[b h w c]` and `target`.

  Raises:
    UserError: the data loader is unknown.
  """
  choose("data_loader", data_loader, DATA_LOADERS)
  batches = grain.MapDataset.source(order)
  if data_loader == "in_memory":
    batches = batches.map(lambda indices: {"index": indices})
    return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads=0)))
  batches = batches.map(functools.partial(_read, split))
  num_threads = min(_MAX_READERS, max(2, num_cores()))
  image = split.read(np.arange(1))["image"]
  prefetched = _PREFETCHED_BYTES // (len(order[0]) * image.nbytes)
  return iter(
    batches.to_iter_dataset(
      grain.ReadOptions(
        num_threads=num_threads,
        prefetch_buffer_size=min(8, max(num_threads, prefetched)),
      )
    )
  )


def take(
  iterator: grain.DatasetIterator,
  order: BatchOrder,
  data_loader: str,
  count: int,
) -> Batch:
  """Returns the next batches of `training_batches`, stacked.

  Indices are taken from their order, bypassing grain: several steps of a small
  model take a large GPU no longer than one of grain's elements.

  Args:
    iterator: is advanced by `count` batches.
    order: as `training_batches` was given it.
    data_loader: as `training_batches` was given it.
    count: how many batches.
  """
  state = iterator.get_state()
  if data_loader == "in_memory" and state.keys() == {_NEXT}:
    start = state[_NEXT]
    iterator.set_state({_NEXT: start + count})
    return {"index": np.stack([order[start + i] for i in range(count)])}
  batches = [next(iterator) for _ in range(count)]
  return {name: np.stack([b[name] for b in batches]) for name in batches[0]}


def state_at(batch: int) -> dict[str, int]:
  """Returns the state of a `training_batches` iterator before a batch."""
  return {_NEXT: batch}


_NEXT = "next_index"  # grain's name of the one number


def evaluation_batches(
  split: Split,
  batch_size: int,
  data_loader: str,
  process_index: int = 0,
  process_count: int = 1,
) -> Iterator[Batch]:
  """Yields every example once, in order; the last batch is padded and masked.

  Args:
    split: the examples.
    batch_size: examples per batch, over all processes.
    data_loader: "in_memory" or "streaming".
    process_index: which part of each batch this process takes.
    process_count: number of processes that divide a batch.

  Yields:
    Batches as `training_batches` gives, with `mask` bool `[b]`: False for
    padding, which repeats example 0.

  Raises:
    UserError: the data loader is unknown, or a batch does not divide over the
      processes.
  """
  choose("data_loader", data_loader, DATA_LOADERS)
  part = _process_slice(batch_size, process_index, process_count)
  for start in range(0, len(split), batch_size):
    indices = np.arange(start, start + batch_size, dtype=np.int32)[part]
    mask = indices < len(split)
    indices = np.where(mask, indices, 0)
    batch = (
      {"index": indices}
      if data_loader == "in_memory"
      else _read(split, indices)
    )
    yield batch | {"mask": mask}


def _read(split: Split, indices: Int32[np.ndarray, " b"]) -> Batch:
  read = split.read(indices)
  return {"image": read["image"], "target": read["target"]}


def _process_slice(
  batch_size: int, process_index: int, process_count: int
) -> slice:
  """Returns the part of a global batch that one process takes."""
  if batch_size % process_count:
    raise UserError(
      f"batch_size={batch_size} must be a multiple of {process_count} processes"
    )
  size = batch_size // process_count
  return slice(process_index * size, (process_index + 1) * size)
