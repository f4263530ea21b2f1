"""Reads prepared records into arrays.

tensorflow-datasets' own data source starts threads for every batch and takes
eight times the work to decode a record, with Python's lock held: threads that
read could not keep up with a GPU.
"""

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Integer

from fer_jax.errors import UserError
from fer_jax.text_output import printable

if TYPE_CHECKING:  # Slow to import, and not needed to load a trained model.
  import tensorflow_datasets as tfds

# Records are read at random, so that what follows one is not read ahead.
_OPTIONS = "readahead_buffer_size:0"
_BUFFER_BYTES = 32 << 10


class RecordFiles:
  """The array_record files of a prepared split; for any number of threads.

  Attributes:
    fingerprint: hash of their contents, as `splits.fingerprint_of` computes
      it; None where none is stored with them.
  """

  def __init__(self, info: "tfds.core.DatasetInfo", split: str):
    """Opens no file yet.

    Args:
      info: of a dataset that `FaceBuilder` has prepared.
      split: its name.
    """
    files = info.splits[split]
    self._paths = [str(path) for path in files.filepaths]
    self._split = split
    fingerprints = (info.metadata or {}).get("fingerprints") or {}
    self.fingerprint: str | None = fingerprints.get(split)
    self._ends = np.cumsum(files.shard_lengths)
    self._readers: list[Any] = [None] * len(self._paths)
    self._lock = threading.Lock()
    self._image_shape = info.features["image"].shape
    target = info.features["target"]
    self._is_label = np.issubdtype(target.np_dtype, np.integer)
    self._target_shape = target.shape

  def __getstate__(self) -> dict[str, Any]:
    """Leaves out open files, so that another process opens its own."""
    readers = [None] * len(self._paths)
    return {**self.__dict__, "_readers": readers, "_lock": None}

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__ |= state
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return int(self._ends[-1])

  def read(self, indices: Integer[np.ndarray, " b"]) -> dict[str, np.ndarray]:
    """Reads records by their position.

    Args:
      indices: in any order; there may be none.

    Returns:
      `image` uint8 `[b h w c]`, `target` int32 `[b]` or float32 `[b k]`, and
      `row` int32 `[b]`.

    Raises:
      IndexError: there is no such record.
      UserError: a file is damaged, or other data have been prepared in the
        place of these.
    """
    from tensorflow_datasets.proto import tf_example_pb2

    indices = np.asarray(indices)
    count, dtype = len(indices), np.int32 if self._is_label else np.float32
    images = np.empty((count, int(np.prod(self._image_shape))), np.uint8)
    targets = np.empty((count, *self._target_shape), dtype)
    rows = np.empty(count, np.int32)
    for i, record in zip(*self._records(indices), strict=True):
      feature = tf_example_pb2.Example.FromString(record).features.feature
      image = feature["image"].bytes_list.value[0]
      images[i] = np.frombuffer(image, np.uint8)
      if self._is_label:
        targets[i] = feature["target"].int64_list.value[0]
      else:
        targets[i] = feature["target"].float_list.value
      rows[i] = feature["row"].int64_list.value[0]
    return {
      "image": images.reshape(count, *self._image_shape),
      "target": targets,
      "row": rows,
    }

  def _records(
    self, indices: Integer[np.ndarray, " b"]
  ) -> tuple[list[int], list[bytes]]:
    """Reads records file by file.

    Returns:
      The place of each in `indices`, and the records.
    """
    if len(indices) and not 0 <= indices.min() <= indices.max() < len(self):
      raise IndexError(f"records {indices} of {len(self)}")
    files = np.searchsorted(self._ends, indices, side="right")
    places: list[int] = []
    records: list[bytes] = []
    for file in np.unique(files):
      of_file = np.flatnonzero(files == file)
      start = self._ends[file - 1] if file else 0
      records += self._read_file(file, (indices[of_file] - start).tolist())
      places += of_file.tolist()
    return places, records

  def _read_file(self, file: int, positions: list[int]) -> Sequence[bytes]:
    if self._readers[file] is None:
      with self._lock:
        if self._readers[file] is None:
          self._readers[file] = self._open(file)
    try:
      return self._readers[file].read(positions)
    except RuntimeError as e:
      raise self._damaged(file, str(e)) from e

  def _open(self, file: int) -> Any:
    from array_record.python import array_record_module

    try:
      reader = array_record_module.ArrayRecordReader(
        self._paths[file],
        options=_OPTIONS,
        file_reader_buffer_size=_BUFFER_BYTES,
      )
    except RuntimeError as e:
      self._check_not_replaced()
      raise self._damaged(file, str(e)) from e
    self._check_not_replaced()  # Once it is open, nothing replaces it.
    start = self._ends[file - 1] if file else 0
    expected, found = int(self._ends[file] - start), reader.num_records()
    if found != expected:
      what = f"{found:,} of {expected:,} records can be read"
      raise self._damaged(file, what)
    return reader

  def _damaged(self, file: int, what: str) -> UserError:
    path = printable(self._paths[file])
    return UserError(
      f"{path}: damaged ({what.partition(';')[0]}): delete"
      f" {printable(Path(self._paths[file]).parent)}, and it is prepared again"
    )

  def _check_not_replaced(self) -> None:
    """Raises UserError if the folder holds other data than when it was opened.

    All releases of a dataset are prepared in the same folder.
    """
    folder = Path(self._paths[0]).parent
    try:
      metadata = json.loads((folder / "metadata.json").read_text())
      now = metadata.get("fingerprints", {}).get(self._split)
    except (OSError, ValueError, AttributeError):
      now = None
    if now != self.fingerprint:
      raise UserError(
        f"the prepared data in {folder} have been removed, or replaced by those"
        " of another release, since the dataset was loaded: load it again, and"
        " give each release a dataset.data_dir of its own"
      )
