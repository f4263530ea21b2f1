"""FER2013 as a dataset: prepared once, and again when the release changes."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from tiny_releases import (
  FORMS,
  all_faces,
  challenge_csv,
  make_faces,
  write_files,
)

from fer_jax import recipes
from fer_jax.data import load
from fer_jax.data.datasets import fer2013_releases
from fer_jax.errors import UserError
from fer_jax.training.create_experiment import create_experiment


@pytest.fixture
def faces():
  return all_faces()


@pytest.fixture
def dirs(tmp_path):
  return {
    "manual_dir": str(tmp_path / "raw"),
    "data_dir": str(tmp_path / "prepared"),
  }


@pytest.fixture
def raw(tmp_path):
  return tmp_path / "raw"


def without_release(dirs):
  return {"data_dir": dirs["data_dir"]}


def table_entries(arrays):
  return {key: value.tolist() for key, value in arrays.items()}


def test_splits_follow_the_official_usage(dirs, raw, faces):
  write_files(raw, FORMS["csv"](faces))
  dataset = load("fer2013", **dirs)
  assert dataset.class_names[3] == "happy" and dataset.num_classes == 7
  assert dataset.image_shape == (48, 48, 1)
  for split, usage in [
    ("train", "Training"),
    ("validation", "PublicTest"),
    ("test", "PrivateTest"),
  ]:
    rows = [i for i, face in enumerate(faces) if face.usage == usage]
    arrays = dataset.split(split).arrays()
    assert arrays["row"].tolist() == rows
    assert arrays["target"].tolist() == [faces[i].label for i in rows]
    np.testing.assert_array_equal(
      arrays["image"][..., 0], np.stack([faces[i].image for i in rows])
    )


@pytest.mark.parametrize("form", ["icml", "tar.gz", "folders", "folders zip"])
def test_forms_prepare_alike(dirs, raw, faces, form):
  write_files(raw, FORMS["csv"](faces))
  wanted = table_entries(load("fer2013", **dirs).split("test").arrays())
  (raw / "fer2013.csv").unlink()
  write_files(raw, FORMS[form](faces))
  got = table_entries(load("fer2013", **dirs).split("test").arrays())
  assert got == wanted


def test_absent_split_is_said_and_refused(dirs, raw, caplog):
  raw.mkdir()
  few = make_faces("Training", "Training", "PublicTest")
  (raw / "fer2013.csv").write_bytes(challenge_csv(few))
  with caplog.at_level(logging.WARNING, logger="absl"):
    dataset = load("fer2013", **dirs)
  (warning,) = [r.getMessage() for r in caplog.records if r.levelno == 30]
  assert "test has no examples (official: 3589)" in warning
  assert "train has angry 1 (official: 3995)" in warning
  assert "\n" not in warning
  with pytest.raises(UserError, match="split 'test': there are train, valida"):
    dataset.split("test")


def test_official_counts_pass_without_a_word(
  dirs, raw, faces, caplog, monkeypatch
):
  counts = {split: (2,) * 7 for split in ("train", "validation", "test")}
  monkeypatch.setattr(
    "fer_jax.data.datasets.class_names.FER2013_COUNTS", counts
  )
  write_files(raw, FORMS["csv"](faces))
  with caplog.at_level(logging.WARNING, logger="absl"):
    load("fer2013", **dirs)
  assert not caplog.records


def test_a_release_without_examples_is_refused(dirs, raw):
  raw.mkdir()
  (raw / "fer2013.csv").write_bytes(challenge_csv([]))
  with pytest.raises(
    UserError, match="no examples of dataset fer2013 in .*csv"
  ):
    load("fer2013", **dirs)


def test_says_once_which_release_was_taken_and_where_data_went(
  dirs, raw, faces, capsys
):
  for form in ("csv", "icml"):
    write_files(raw, FORMS[form](faces))
  load("fer2013", **dirs)
  out, err = capsys.readouterr()
  said = [line for line in err.splitlines() if line.startswith("prepared ")]
  place = f"{dirs['data_dir']}/fer2013/1.0.0"
  assert out == "" and len(said) == 1
  assert said[0].startswith(
    f"prepared fer2013 from {raw}/fer2013.csv (not {raw}/icml_face_data.csv) "
    f"in {place} ("
  )
  assert "instead of" not in said[0]
  load("fer2013", **dirs)
  assert capsys.readouterr() == ("", "")
  (raw / "fer2013.csv").unlink()
  load("fer2013", **dirs)
  (said,) = [
    line for line in capsys.readouterr().err.splitlines() if place in line
  ]
  assert said.startswith(f"prepared fer2013 from {raw}/icml_face_data.csv in")
  assert said.endswith(", replacing a copy of other files")


def test_changed_release_is_prepared_again(dirs, raw, faces):
  write_files(raw, FORMS["csv"](faces))
  assert len(load("fer2013", **dirs).split("train")) == 14
  old = load("fer2013", **dirs).split("train")
  old.read(np.array([0]))
  (raw / "fer2013.csv").write_bytes(challenge_csv(faces[:7]))
  assert len(load("fer2013", **dirs).split("train")) == 7
  # A run that has the old data open goes on reading them.
  assert old.arrays()["target"].tolist() == [*range(7)] * 2


def test_wrong_new_release_leaves_the_old_data(dirs, raw, faces):
  write_files(raw, FORMS["csv"](faces))
  load("fer2013", **dirs)
  (raw / "fer2013.csv").write_bytes(challenge_csv(faces)[:-3000])
  with pytest.raises(UserError, match="line 43"):
    load("fer2013", **dirs)
  (raw / "fer2013.csv").unlink()
  assert len(load("fer2013", **without_release(dirs)).split("train")) == 14


def test_same_release_is_prepared_once(dirs, raw, faces, monkeypatch):
  write_files(raw, FORMS["csv"](faces))
  load("fer2013", **dirs)
  monkeypatch.setattr(fer2013_releases, "read", None)
  assert len(load("fer2013", **dirs).split("test")) == 14


def test_prepared_data_need_no_release(dirs, raw, faces, caplog):
  write_files(raw, FORMS["csv"](faces))
  load("fer2013", **dirs)
  (raw / "fer2013.csv").unlink()
  caplog.clear()
  assert len(load("fer2013", **without_release(dirs)).split("train")) == 14
  assert not caplog.records


@pytest.mark.parametrize("prepared_before", [False, True])
@pytest.mark.parametrize("in_manual_folder", [False, True])
def test_wrong_manual_dir_is_refused_whatever_else_is_there(
  dirs, tmp_path, faces, prepared_before, in_manual_folder
):
  manual = tmp_path / "home/downloads/manual"
  write_files(manual, FORMS["csv"](faces))
  if prepared_before:
    load("fer2013", **without_release(dirs))
  if not in_manual_folder:
    (manual / "fer2013.csv").unlink()
  with pytest.raises(UserError) as error:
    load("fer2013", **dirs)
  assert f"manual_dir={dirs['manual_dir']} does not exist" in str(error.value)
  write_files(tmp_path / "raw", {"fer2013.csv.part": b"", "notes.txt": b""})
  with pytest.raises(UserError) as error:
    load("fer2013", **dirs)
  part = (
    f"no release of FER2013 in {dirs['manual_dir']}: looked for fer2013.csv"
  )
  assert part in str(error.value)
  with pytest.raises(UserError, match="notes.txt: not a release of FER2013"):
    load("fer2013", **dirs | {"manual_dir": str(tmp_path / "raw/notes.txt")})


def test_manual_dir_that_cannot_be_looked_into_is_named(dirs):
  with pytest.raises(UserError, match="cannot look for FER2013: .*too long"):
    load("fer2013", **dirs | {"manual_dir": "x" * 300})


def test_interrupted_reading_leaves_nothing(
  dirs, raw, faces, monkeypatch, tmp_path
):
  write_files(raw, FORMS["csv"](faces))

  def interrupted(path):
    yield from list(whole(path))[:20]
    raise KeyboardInterrupt

  whole = fer2013_releases.read
  monkeypatch.setattr(fer2013_releases, "read", interrupted)
  with pytest.raises(KeyboardInterrupt):
    load("fer2013", **dirs)
  (lock,) = (tmp_path / "prepared").glob("*/*")
  assert lock.name == ".lock"
  monkeypatch.undo()
  assert len(load("fer2013", **dirs).split("test")) == 14


def test_no_release_is_one_line_with_the_way_out(dirs, tmp_path):
  with pytest.raises(UserError, match="no release of FER2013") as error:
    load("fer2013", **without_release(dirs))
  for folder in ("prepared", "home"):
    assert str(tmp_path / folder / "downloads/manual") in str(error.value)
  assert not any(s in str(error.value) for s in ("\n", "synthetic_faces"))

  # Drawn faces are an alternative only for training.
  dataset = {"name": "fer2013", **without_release(dirs)}
  config = recipes.get_config("resnet18", dataset=dataset)
  with pytest.raises(UserError, match="on drawn faces: .*=synthetic_faces"):
    create_experiment(config)


def test_without_tensorflow_and_with_a_clean_terminal(dirs, raw, faces):
  write_files(raw, FORMS["csv"](faces))
  code = f"""
import sys
from importlib.machinery import PathFinder

def without_tensorflow(name, path=None, target=None, find=PathFinder.find_spec):
  return None if name == "tensorflow" else find(name, path, target)

PathFinder.find_spec = without_tensorflow
from fer_jax.data import load
assert "tensorflow_datasets" not in sys.modules
print(len(load("fer2013", **{dirs!r}).split("train").arrays()["row"]))
assert "tensorflow" not in sys.modules
"""
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout == "14\n"
  taken, counts = done.stderr.splitlines()
  assert taken.startswith("prepared fer2013 from ")
  assert "differs from the official FER2013" in counts
