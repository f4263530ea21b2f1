"""Tests of the contact sheet."""

import functools
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from fer_jax.data import contact_sheet as module
from fer_jax.data import registry
from fer_jax.data.contact_sheet import contact_sheet
from fer_jax.errors import UserError

NAMES = ("cat", "dog", "emu")


def _images(n, h=48, w=48, c=1):
  # Image i is all of grey 40 + i, so that the sheet tells which it shows.
  grey = np.arange(40, 40 + n, dtype=np.uint8)[:, None, None, None]
  return np.broadcast_to(grey, (n, h, w, c)).copy()


def _greys(sheet):
  """Returns the greys 40..200 that fill whole tiles of the sheet."""
  grey, count = np.unique(np.asarray(sheet)[..., 0], return_counts=True)
  return {int(g) for g, n in zip(grey, count, strict=True) if n >= 96 * 96}


def test_size_follows_classes_and_columns():
  images, targets = _images(12), np.arange(12) % 3
  few = contact_sheet(images, targets, NAMES, columns=2)
  more = contact_sheet(images, targets, NAMES, columns=4)
  assert more.width - few.width == 2 * 100  # Tile and gap.
  assert more.height == few.height
  two = contact_sheet(images[:8], targets[:8] % 2, NAMES[:2], columns=2)
  assert few.height - two.height == 100
  titled = contact_sheet(images, targets, NAMES, columns=4, title="Animals")
  assert titled.height > more.height


def test_each_row_shows_its_class():
  targets = np.arange(12) % 3
  sheet = contact_sheet(_images(12), targets, NAMES, columns=4)
  pixels = np.asarray(sheet)[..., 0]
  for k in range(3):
    row = pixels[16 + k * 100 + 48, -16 - 396 :: 100][:4]
    assert {(int(grey) - 40) % 3 for grey in row} == {k}
    label = pixels[16 + k * 100 : 16 + k * 100 + 96, : -16 - 396]
    assert label.min() < 60, "the class's name is missing"


def test_a_class_without_images_has_a_row():
  full = contact_sheet(_images(6), np.arange(6) % 3, NAMES, columns=2)
  sheet = contact_sheet(_images(6), np.zeros(6, int), NAMES, columns=2)
  assert sheet.height == full.height and len(_greys(sheet)) == 3  # And white.


def test_fewer_images_than_columns():
  sheet = contact_sheet(_images(3), np.arange(3), NAMES, columns=5)
  assert {40, 41, 42} <= _greys(sheet)


def test_seed_picks():
  images, targets = _images(60), np.arange(60) % 3
  first, again, other = (
    _greys(contact_sheet(images, targets, NAMES, columns=3, seed=s))
    for s in (0, 0, 9)
  )
  assert first == again != other


def test_votes_count_for_the_highest():
  votes = np.eye(3, dtype=np.float32)[np.arange(6) % 3] * 0.6 + 0.1
  sheets = [
    contact_sheet(_images(6), targets, NAMES)
    for targets in (votes, np.arange(6) % 3)
  ]
  assert sheets[0].tobytes() == sheets[1].tobytes()


def test_colour_and_pixels_stay_sharp():
  images = np.zeros((3, 24, 24, 3), np.uint8)
  images[:, ::2, :, 0] = 255
  sheet = contact_sheet(images, np.arange(3), NAMES, columns=1)
  tile = np.asarray(sheet)[16:112, -112:-16]
  assert set(map(tuple, tile.reshape(-1, 3))) == {(0, 0, 0), (255, 0, 0)}


def test_large_images_shrink():
  sheet = contact_sheet(_images(3, 400, 200), np.arange(3), NAMES, columns=1)
  tile = np.asarray(sheet)[16:112, -64:-16, 0]
  assert np.unique(tile).tolist() == [40]


def _run(tmp_path, **changes):
  values = {
    "dataset": "synthetic_faces",
    "prepared_dir": str(tmp_path / "prepared"),
    "output": str(tmp_path / "out" / "sheet.png"),
    "columns": 3,
    **changes,
  }
  # Set, not parsed: other modules' flags may be required.
  flags.FLAGS.mark_as_parsed()
  with flagsaver.flagsaver(**values):
    module.main(["contact_sheet"])


@pytest.fixture
def small(monkeypatch):
  """Makes the default data set small."""
  small_load = functools.partial(
    registry.load, num_train=21, num_validation=7, num_test=7
  )
  monkeypatch.setattr(registry, "load", small_load)


def test_main_writes_the_file(tmp_path, small, capsys):
  _run(tmp_path)
  path = tmp_path / "out" / "sheet.png"
  assert str(path) in capsys.readouterr().out
  with Image.open(path) as sheet:
    assert sheet.height == 16 + 40 + 7 * 100 - 4 + 16


def test_unknown_split_lists_those_there(tmp_path, small):
  with pytest.raises(UserError, match="'tset'.*train, validation, test"):
    _run(tmp_path, split="tset")


def test_unknown_format_is_told_before_any_work(tmp_path):
  with pytest.raises(UserError, match="sheet.txt"):
    _run(tmp_path, output=tmp_path / "sheet.txt")
  assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path, small):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot write --output="):
    _run(tmp_path, output=tmp_path / "file" / "sheet.png")


def test_unknown_dataset_is_one_line():
  done = subprocess.run(
    [sys.executable, "-m", module.__name__, "--dataset=synthetic_fases"],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 1 and done.stdout == ""
  (line,) = done.stderr.splitlines()
  assert "synthetic_fases" in line and "synthetic_faces" in line
