"""Folders of a test's releases and prepared datasets, and warnings."""

import logging

import pytest


@pytest.fixture(autouse=True)
def no_home(tmp_path, monkeypatch):
  """Keeps the user's own releases out of the tests."""
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "home"))


@pytest.fixture
def root(tmp_path):
  return tmp_path / "release"


@pytest.fixture
def dirs(tmp_path, root):
  return {"manual_dir": str(root), "data_dir": str(tmp_path / "prepared")}


@pytest.fixture
def warned(caplog):
  caplog.set_level(logging.WARNING, logger="absl")
  return lambda: [r.getMessage() for r in caplog.records]
