"""Any dataset: loaded by name, prepared whole or not at all."""

import copy
import fcntl
import importlib
import os
import pickle
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fer_jax.data.datasets import builder, registry
from fer_jax.data.datasets.source_files import SourceFiles
from fer_jax.errors import UserError


class ToyFaces(builder.FaceBuilder):
  """Rows numbered backwards, in two classes."""

  VERSION = tfds.core.Version("1.0.0")
  classes = ("plain", "odd")
  image_shape = (4, 5, 3)
  default_options = {"num_rows": 6}
  num_reads = 0

  def read_examples(self):
    """Gives rows to one split of three."""
    type(self).num_reads += 1
    return {"train": self.rows(), "validation": [], "test": iter([])}

  def rows(self):
    """Gives the rows."""
    for i in range(self.options["num_rows"]):
      image = np.full(self.image_shape, i, np.uint8)
      yield image, i % 2, self.options["num_rows"] - i


class InterruptedFaces(ToyFaces):
  """The same dataset, stopped by the user in mid-split."""

  name = "toy_faces"

  def rows(self):
    """Gives the rows."""
    yield from list(super().rows())[:3]
    raise KeyboardInterrupt


class SlowFaces(ToyFaces):
  """Takes long enough for another run to come by."""

  def rows(self):
    """Gives the rows."""
    time.sleep(0.3)
    yield from super().rows()


class VotedFaces(ToyFaces):
  """Targets are votes."""

  def target_feature(self):
    """Two votes."""
    return tfds.features.Tensor(shape=(2,), dtype=np.float32)

  def rows(self):
    """Gives the rows."""
    for image, target, row in super().rows():
      yield image, np.eye(2, dtype=np.float32)[target] * 0.9, row


@pytest.fixture(autouse=True)
def registered(monkeypatch):
  for toy in (ToyFaces, InterruptedFaces, SlowFaces, VotedFaces):
    monkeypatch.setitem(
      registry.DATASETS, toy.__name__, f"{__name__}:{toy.__name__}"
    )
    monkeypatch.setattr(toy, "num_reads", 0)


@pytest.fixture
def prepared(tmp_path) -> Path:
  return tmp_path / "prepared"


def load(name, prepared, **options):
  return registry.load(name, data_dir=str(prepared), **options)


def files(folder: Path) -> list[str]:
  return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_rows_keep_their_order(prepared):
  split = load("ToyFaces", prepared).split("train")
  arrays = split.arrays()
  assert arrays["row"].tolist() == [6, 5, 4, 3, 2, 1]
  assert arrays["image"][:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
  assert [a.dtype for a in arrays.values()] == [np.uint8, np.int32, np.int32]
  picked = split.read(np.array([4, 0, 4]))
  for key, array in picked.items():
    np.testing.assert_array_equal(array, arrays[key][[4, 0, 4]])
  assert split.read(np.array([], int))["image"].shape == (0, 4, 5, 3)


def test_arrays_are_read_once_and_kept_from_writing(prepared):
  split = load("ToyFaces", prepared).split("train")
  arrays = split.arrays()
  assert split.arrays()["image"] is arrays["image"]
  with pytest.raises(ValueError, match="read-only"):
    arrays["target"][0] = 1
  targets = load("ToyFaces", prepared).split("train").targets()
  with pytest.raises(ValueError, match="read-only"):
    targets[0] = 1


def test_targets_may_be_votes(prepared):
  arrays = load("VotedFaces", prepared).split("train").arrays()
  assert arrays["target"].dtype == np.float32
  np.testing.assert_allclose(arrays["target"][1], [0, 0.9])


def test_split_goes_to_another_process(prepared):
  split = load("ToyFaces", prepared).split("train")
  again = pickle.loads(pickle.dumps(split))
  assert again.read(np.array([1]))["row"].tolist() == [5]


@pytest.mark.parametrize(
  "copied", [copy.deepcopy, lambda dataset: pickle.loads(pickle.dumps(dataset))]
)
def test_datasets_are_copied(prepared, copied):
  again = copied(load("ToyFaces", prepared))
  assert again.split("train").read([1])["row"].tolist() == [5]


@pytest.mark.parametrize("holdout", [0.0, 0.5])
def test_what_is_no_position_is_refused(prepared, holdout):
  split = load("ToyFaces", prepared, holdout_test=holdout).split("train")
  assert split.read([])["image"].shape == (0, 4, 5, 3)
  mask = np.arange(len(split)) == 1
  for wrong, shown in (
    (mask, f"bool[{len(split)}]"),
    ([-1], "[-1]"),
    ([0, len(split)], f"[{len(split)}]"),
    (1, "int64[]"),
    (slice(2), "object[]"),
    (np.array([0.5]), "float64[1]"),
    ([[0]], "int64[1, 1]"),
  ):
    message = re.escape(f"indices={shown} must be a list of integers, 0 to ")
    with pytest.raises(UserError, match=f"{message}.* in split train; "):
      split.read(wrong)
  rows = split.read(np.flatnonzero(mask))["row"]
  np.testing.assert_array_equal(rows, split.arrays()["row"][mask])


def test_split_without_rows_is_left_out(prepared):
  dataset = load("ToyFaces", prepared)
  assert list(dataset.splits) == ["train"]
  with pytest.raises(
    UserError, match="no examples in split 'test': there are tra"
  ):
    dataset.split("test")


def test_options_are_prepared_apart(prepared):
  assert len(load("ToyFaces", prepared, num_rows=3).split("train")) == 3
  assert len(load("ToyFaces", prepared).split("train")) == 6
  assert len(load("ToyFaces", prepared, num_rows=3).split("train")) == 3
  assert ToyFaces.num_reads == 2


def test_unknown_names_list_the_choices(prepared):
  with pytest.raises(UserError, match="unknown dataset 'fer2031'.*: .*fer2013"):
    load("fer2031", prepared)
  with pytest.raises(UserError, match="unknown option .*'rows'.*: .*num_rows"):
    load("ToyFaces", prepared, rows=3)
  assert "fer2013" in registry.available()


@pytest.mark.parametrize("name", sorted(registry.DATASETS))
def test_listed_builder_has_the_name_it_is_listed_by(name):
  module, class_name = registry.DATASETS[name].split(":")
  builder_class = getattr(importlib.import_module(module), class_name)
  assert builder_class.name == name


def test_interrupted_preparation_leaves_nothing(prepared):
  with pytest.raises(KeyboardInterrupt):
    load("InterruptedFaces", prepared)
  assert files(prepared) == ["toy_faces", "toy_faces/.lock"]
  assert len(load("ToyFaces", prepared).split("train")) == 6


def test_what_a_killed_run_left_is_cleared(prepared):
  left_over = prepared / "toy_faces/incomplete.x/toy_faces/1.0.0"
  left_over.mkdir(parents=True)
  (left_over / "metadata.json").write_text('{"source": {}}')
  assert len(load("ToyFaces", prepared).split("train")) == 6
  assert not left_over.exists()


def test_two_runs_at_once_prepare_once(prepared):
  datasets = []
  threads = [
    threading.Thread(
      target=lambda: datasets.append(load("SlowFaces", prepared))
    )
    for _ in range(2)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert [len(dataset.split("train")) for dataset in datasets] == [6, 6]
  assert SlowFaces.num_reads == 1


def test_folder_that_cannot_be_written_is_named(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="file.*dataset.data_dir"):
    load("ToyFaces", tmp_path / "file")


def test_preparation_is_one_line_and_opening_none(prepared, capfd):
  load("ToyFaces", prepared)
  out, err = capfd.readouterr()
  (line,) = err.splitlines()
  assert out == ""
  assert line.startswith(f"prepared toy_faces in {prepared}/toy_faces/1.0.0 (")
  load("ToyFaces", prepared)
  assert capfd.readouterr() == ("", "")


def test_run_that_waits_for_another_says_so(prepared, capfd):
  (prepared / "toy_faces").mkdir(parents=True)
  with open(prepared / "toy_faces/.lock", "w") as other:
    fcntl.flock(other, fcntl.LOCK_EX)
    waits = threading.Thread(target=load, args=("ToyFaces", prepared))
    waits.start()
    err, patience = "", 1000
    while not err and patience:
      err, patience = capfd.readouterr().err, patience - 1
      time.sleep(0.01)
    assert err.startswith("waiting for another run that prepares in ")
  waits.join()
  assert ToyFaces.num_reads == 1


def test_drawn_faces_need_no_release(prepared):
  dataset = load(
    "synthetic_faces",
    prepared,
    manual_dir=str(prepared / "mistyped"),
    num_train=8,
    num_validation=2,
    num_test=0,
  )
  assert {name: len(s) for name, s in dataset.splits.items()} == {
    "train": 8,
    "validation": 2,
  }


def test_home_is_expanded(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  registry.load("ToyFaces", data_dir=os.path.join("~", "prepared"))
  assert (tmp_path / "prepared/toy_faces/1.0.0/metadata.json").exists()


def test_a_user_without_a_home_can_prepare(tmp_path, monkeypatch):
  for name in ("HOME", "TFDS_DATA_DIR"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.setattr(os, "getuid", lambda: 4_242_424)  # No such user.
  monkeypatch.chdir(tmp_path)
  registry.load("synthetic_faces", num_train=7, num_validation=7, num_test=7)
  for name in ("fer2013", "rafdb"):
    with pytest.raises(UserError, match="^no release of "):
      registry.load(name)
  with pytest.raises(UserError, match="give the path without ~"):
    registry.load("rafdb", data_dir="~/data")
  assert os.listdir() == ["cache"]


@pytest.mark.parametrize("option", ["data_dir", "manual_dir"])
@pytest.mark.parametrize("url", ["az://x/y", "http://x/y"])
def test_other_urls_are_refused(option, url):
  message = f"{url} is (neither s3://|not a path of this machine)"
  with pytest.raises(UserError, match=message):
    registry.load("fer2013", **{option: url})


def test_a_release_that_changes_while_it_is_read_is_refused(
  prepared, tmp_path, monkeypatch
):
  release = tmp_path / "release.txt"
  release.write_text("before")

  def changing(self):
    yield from list(ToyFaces.rows(self))
    release.write_text("after it was read")

  monkeypatch.setattr(
    VotedFaces, "source", lambda self: SourceFiles({"release": release})
  )
  monkeypatch.setattr(VotedFaces, "rows", changing)
  monkeypatch.setattr(VotedFaces, "target_feature", ToyFaces.target_feature)
  with pytest.raises(UserError, match="changed while dataset voted_faces was"):
    load("VotedFaces", prepared)
  assert not list(prepared.glob("*/1.0.0"))
