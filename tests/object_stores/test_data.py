"""Prepared data on a store: uploaded once, downloaded where they are not."""

from typing import Any

import fsspec
import numpy as np
import pytest

from fer_jax.data import load
from fer_jax.data.datasets import remote_data
from fer_jax.data.datasets.synthetic_faces import SyntheticFaces
from fer_jax.errors import UserError
from fer_jax.object_stores.objects import ObjectFolder

OPTIONS: dict[str, Any] = {"num_train": 21, "num_validation": 7, "num_test": 7}


@pytest.fixture
def url(memory_store, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "first"))
  return f"{memory_store}/data"


def images(url):
  dataset = load("synthetic_faces", data_dir=url, **OPTIONS)
  return dataset.split("train").arrays()["image"]


def elsewhere(monkeypatch, tmp_path):
  """Goes to a machine where nothing may be prepared."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "second"))

  def refuse(self):
    raise AssertionError("prepared again")

  monkeypatch.setattr(SyntheticFaces, "read_examples", refuse)


def test_data_are_prepared_once_and_then_copied(url, tmp_path, monkeypatch):
  first = images(url)
  store = fsspec.filesystem("gs")
  before = store.find(url, detail=True)  # with the times of writing
  assert any(name.endswith("/checksums.json") for name in before)
  assert not any(".leases" in n or ".incomplete" in n for n in before)
  np.testing.assert_array_equal(images(url), first)
  elsewhere(monkeypatch, tmp_path)
  np.testing.assert_array_equal(images(url), first)
  assert store.find(url, detail=True) == before
  files = list((tmp_path / "second").rglob("*.array_record*"))
  assert len(files) == 3


def test_damaged_data_are_refused(url, tmp_path, monkeypatch):
  images(url)
  folder = ObjectFolder(url)
  (name,) = [n for n in folder.list() if "-train.array_record" in n]
  content = bytearray(folder.read(name) or b"")
  content[len(content) // 2] ^= 1
  folder.write(name, bytes(content))
  elsewhere(monkeypatch, tmp_path)
  with pytest.raises(UserError, match=f"{name} is damaged .wrong checksum.: d"):
    images(url)
  assert not list((tmp_path / "second").rglob("*.array_record*"))


def test_an_unfinished_upload_is_done_again(url, tmp_path, monkeypatch):
  first = images(url)
  folder = ObjectFolder(url)
  (name,) = [n for n in folder.list() if "-train.array_record" in n]
  place = name.rpartition("/")[0]
  folder.write(f"{place}/.incomplete", b"")
  folder.delete([name])
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "second"))
  np.testing.assert_array_equal(images(url), first)
  assert folder.read(f"{place}/.incomplete") is None
  assert folder.read(name) is not None


def test_releases_are_read_from_this_machine(url):
  with pytest.raises(
    UserError, match="dataset.manual_dir=gs:.*of this machine"
  ):
    load("folder", manual_dir=url)
  assert remote_data.local_folder("data") == "data"
