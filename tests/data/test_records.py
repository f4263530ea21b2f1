"""Records are read as tensorflow-datasets reads them."""

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fer_jax.data.datasets import record_writer
from fer_jax.data.datasets.builder import FaceBuilder
from fer_jax.data.records import RecordFiles
from fer_jax.data.splits import Split
from fer_jax.errors import UserError


class Labels(FaceBuilder):
  """Random color images with labels."""

  VERSION = tfds.core.Version("1.0.0")
  classes = ("a", "b", "c")
  image_shape = (5, 4, 3)

  def target(self, rng):
    """Draws a label."""
    return int(rng.integers(3))

  def read_examples(self):
    """Draws the examples."""
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(9, 5, 4, 3), dtype=np.uint8)
    return {
      "train": [(x, self.target(rng), 1000 * i) for i, x in enumerate(images)]
    }


class Distributions(Labels):
  """The same with distributions."""

  def target(self, rng):
    """Draws a distribution."""
    return rng.dirichlet(np.ones(3)).astype(np.float32)

  def target_feature(self):
    """Describes a distribution."""
    return tfds.features.Tensor(shape=(3,), dtype=np.float32)


@pytest.mark.parametrize("builder", [Labels, Distributions])
def test_records_are_those_of_tensorflow_datasets(
  builder, tmp_path, monkeypatch
):
  monkeypatch.setattr(record_writer, "_SHARD_BYTES", 300)  # several files
  prepared = builder(data_dir=str(tmp_path)).prepare()
  files = RecordFiles(prepared.info, "train")
  assert len(files) == 9
  assert len(prepared.info.splits["train"].shard_lengths) > 1
  order = [8, 0, 3, 3]
  ours = files.read(np.array(order))
  theirs = prepared.as_data_source("train").__getitems__(order)
  for name, dtype in (("image", np.uint8), ("target", None), ("row", np.int32)):
    expected = np.stack([record[name] for record in theirs])
    np.testing.assert_array_equal(ours[name], expected)
    assert dtype is None or ours[name].dtype == dtype
  soft = builder is Distributions
  assert ours["target"].dtype == (np.float32 if soft else np.int32)
  empty = files.read(np.array([], int))
  with pytest.raises(IndexError):
    files.read(np.array([0, 9]))
  with pytest.raises(IndexError):
    files.read(np.array([-1, 0]))
  assert {name: len(x) for name, x in empty.items()} == dict.fromkeys(ours, 0)


@pytest.mark.parametrize("is_removed", [False, True])
def test_data_of_another_release_are_not_read(tmp_path, is_removed):
  prepared = Labels(data_dir=str(tmp_path)).prepare()
  opened, late = (RecordFiles(prepared.info, "train") for _ in range(2))
  before = opened.read(np.arange(9))
  place = Path(prepared.data_dir)
  other = Distributions(data_dir=str(tmp_path / "other")).prepare()
  place.rename(tmp_path / "replaced")
  if not is_removed:
    shutil.copytree(other.data_dir, place)
  np.testing.assert_array_equal(
    opened.read(np.arange(9))["image"], before["image"]
  )
  with pytest.raises(UserError, match="replaced by those of another release"):
    pickle.loads(pickle.dumps(late)).read(np.arange(9))


def _flip(path: Path) -> None:
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 255
  path.write_bytes(content)


@pytest.mark.parametrize(
  "damage", [_flip, lambda path: os.truncate(path, 100), Path.unlink]
)
def test_damaged_files_are_named(tmp_path, damage):
  prepared = Labels(data_dir=str(tmp_path)).prepare()
  files = RecordFiles(prepared.info, "train")
  (path,) = Path(prepared.data_dir).glob("*array_record*")
  damage(path)
  with pytest.raises(UserError, match="delete .*and it is prepared again") as e:
    files.read(np.arange(9))
  assert str(e.value).startswith(f"{path}: damaged (")


@pytest.mark.parametrize("name", ["dataset_info.json", "*array_record*"])
def test_missing_files_are_prepared_again(tmp_path, name):
  prepared = Labels(data_dir=str(tmp_path)).prepare()
  before = RecordFiles(prepared.info, "train").read(np.arange(9))
  (path,) = Path(prepared.data_dir).glob(name)
  path.unlink()
  again = Labels(data_dir=str(tmp_path)).prepare()
  after = RecordFiles(again.info, "train").read(np.arange(9))
  np.testing.assert_array_equal(after["image"], before["image"])


def test_a_whole_split_is_read_in_parts(tmp_path, monkeypatch):
  prepared = Labels(data_dir=str(tmp_path)).prepare()
  split = Split("train", RecordFiles(prepared.info, "train"))
  whole = split.read(np.arange(9))
  monkeypatch.setattr("fer_jax.data.splits._CHUNK", 4)
  for name, array in split.arrays().items():
    np.testing.assert_array_equal(array, whole[name])
    assert not array.flags.writeable


def test_a_fingerprint_that_is_not_stored_is_computed(tmp_path):
  prepared = Labels(data_dir=str(tmp_path)).prepare()
  files = RecordFiles(prepared.info, "train")
  stored = files.fingerprint
  files.read(np.arange(9))  # opens the files, which compares it
  files.fingerprint = None
  assert Split("train", files).fingerprint == stored
