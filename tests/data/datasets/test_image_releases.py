"""RAF-DB, AffectNet and JAFFE: official splits, counts and every mistake."""

import io
import os
import pickle

import numpy as np
import pytest
from image_releases import (
  color,
  save,
  targets,
  write_affectnet,
  write_jaffe,
  write_rafdb,
)

from fer_jax.data import load
from fer_jax.data.datasets import class_names
from fer_jax.errors import UserError


def test_official_counts():
  rafdb = [sum(counts) for counts in class_names.RAFDB_COUNTS.values()]
  affectnet = [sum(counts) for counts in class_names.AFFECTNET_COUNTS.values()]
  assert rafdb == [12_271, 3_068] and affectnet == [287_651, 3_999]
  assert sum(class_names.JAFFE_COUNTS) == 213


@pytest.mark.parametrize("place", ["", "basic"])
def test_rafdb_has_its_official_split(dirs, root, place, warned):
  write_rafdb(root / place)
  dataset = load("rafdb", **dirs)
  assert dataset.image_shape == (100, 100, 3)
  assert dataset.class_names[3] == "happiness"
  assert targets(dataset, "train") == [i % 7 for i in range(14)]
  arrays = dataset.split("test").arrays()
  assert arrays["target"].tolist() == list(range(7))
  assert arrays["row"].tolist() == list(range(14, 21))
  assert abs(int(arrays["image"][3, 0, 0, 0]) - 30) < 4  # JPEG
  (warning,) = warned()
  assert "train has 14 (official: 12,271): surprise 2 (official: 1,290)" in (
    warning
  )
  with pytest.raises(UserError, match="holdout_validation"):
    dataset.split("validation")
  held = load("rafdb", **dirs, holdout_validation=0.5)
  assert len(held.split("validation")) == 7


@pytest.mark.parametrize("names", ["1 2 3 4 5 6 7", "Surprise Fear Happy"])
def test_rafdb_in_class_folders(dirs, root, names):
  for split in ("train", "test"):
    for name in names.split():
      save(root / f"DATASET/{split}/{name}/1.jpg", color(0))
  expected = [0, 1, 2, 3, 4, 5, 6] if names.startswith("1") else [1, 3, 0]
  assert targets(load("rafdb", **dirs), "train") == expected


def test_what_is_wrong_with_rafdb_is_named(dirs, root):
  root.mkdir()
  with pytest.raises(UserError, match="no release of RAF-DB found: unpack"):
    load("rafdb", **dirs)
  write_rafdb(root)
  labels = root / "EmoLabel/list_patition_label.txt"
  text = labels.read_text()
  for line in ("train_00001.jpg 8", "train_00001.jpg", "x_1.jpg 1"):
    labels.write_text(text.replace("train_00001.jpg 1", line))
    with pytest.raises(UserError, match="line 1: .*must be like 'train_0000"):
      load("rafdb", **dirs)
  labels.write_text(text + text.splitlines()[0])
  with pytest.raises(UserError, match="train_00001.jpg is listed twice"):
    load("rafdb", **dirs)
  labels.write_text(text + "train_99999.jpg 1\n")
  with pytest.raises(UserError, match="1 images .* missing: train_99999.jpg"):
    load("rafdb", **dirs)
  labels.write_text(text)
  (root / "Image/aligned").rename(root / "Image/elsewhere")
  with pytest.raises(UserError, match="list of RAF-DB was found, but not its"):
    load("rafdb", **dirs)


def test_images_that_rafdbs_list_lacks_are_said(dirs, root, warned):
  write_rafdb(root)
  save(root / "Image/aligned/test_0100_aligned.jpg", color(0))
  load("rafdb", **dirs)
  assert "1 not in the list of labels (Image/aligned/test_0100" in warned()[0]


def test_what_rafdbs_folders_hold_twice_is_said(dirs, root, warned):
  write_rafdb(root)
  name = "train_00001_aligned.jpg"
  save(root / "Image/aligned/copies" / name, color(0))
  labels = root / "EmoLabel/list_patition_label.txt"
  labels.write_text(labels.read_text(), encoding="utf-8-sig")
  assert len(targets(load("rafdb", **dirs), "train")) == 14
  assert "1 of the same name as another (Image/aligned/" in warned()[0]


def test_affectnet_has_its_official_splits(dirs, root, warned):
  numbers = {"train_set": [0, 1, 7, 10, 2], "val_set": [3, 8, 7]}
  write_affectnet(root, numbers)
  dataset = load("affectnet", **dirs)
  assert dataset.image_shape == (224, 224, 3)
  assert targets(dataset, "train") == [0, 1, 7, 2]
  assert targets(dataset, "validation") == [3, 7]
  assert dataset.split("train").arrays()["row"].tolist() == [0, 1, 2, 4]
  assert "train has 4 (official: 287,651)" in warned()[0]
  seven = load("affectnet", **dirs, num_classes=7, image_size=48, color=False)
  assert seven.image_shape == (48, 48, 1) and seven.num_classes == 7
  assert targets(seven, "train") == [0, 1, 2]
  # Another annotation is another release.
  np.save(root / "train_set/annotations/0_exp.npy", np.array(6))
  assert targets(load("affectnet", **dirs), "train") == [6, 1, 7, 2]


def test_annotations_of_affectnets_images_in_subfolders(dirs, root):
  write_affectnet(root, {"train_set": [0, 1], "val_set": [0]})
  (root / "train_set/images/part").mkdir()
  image = root / "train_set/images/1.jpg"
  image.rename(image.parent / "part" / image.name)
  assert targets(load("affectnet", **dirs), "train") == [0, 1]


@pytest.mark.parametrize("names", ["0 7", "neutral Contempt"])
def test_affectnet_in_class_folders(dirs, root, names):
  for split in ("train", "val", "test"):
    for name in names.split():
      save(root / f"{split}/{name}/1.jpg", color(0))
  dataset = load("affectnet", **dirs)
  assert sorted(targets(dataset, "train")) == [0, 7]
  assert {k: len(s) for k, s in dataset.splits.items()} == {
    "train": 2,
    "validation": 2,
    "test": 2,
  }


def test_subfolders_that_cannot_be_read_are_refused(dirs, root, monkeypatch):
  for place in ("train/0", "train/7", "train/7/closed"):
    save(root / place / "1.jpg", color(0))
  scandir = os.scandir

  def refuse(path):
    if str(path).endswith("closed"):
      raise PermissionError(13, "Permission denied")
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refuse)
  with pytest.raises(UserError, match="folder cannot be read .train/7/closed"):
    load("affectnet", **dirs)
  dataset = load("affectnet", **dirs, unreadable="skip")
  assert len(dataset.split("train")) == 2


class Hostile:
  """Would run when unpickled."""

  def __reduce__(self):
    return (print, ("unpickled",))


def test_annotations_are_never_unpickled(dirs, root, capsys):
  write_affectnet(root, {"train_set": [0, 1], "val_set": [0]})
  path = root / "train_set/annotations/1_exp.npy"
  for content in (
    np.array([Hostile()], object),
    np.array("x"),
    np.array([1, 2]),
    np.array(11),
    np.array(np.inf),
  ):
    np.save(path, content, allow_pickle=True)
    with pytest.raises(UserError, match="1_exp.npy: ") as error:
      load("affectnet", **dirs)
    assert "\n" not in str(error.value)
  archive = io.BytesIO()
  np.savez(archive, 1)
  start = b"\x93NUMPY\x01\x00"
  for raw in (pickle.dumps(Hostile()), b"", start, archive.getvalue()):
    path.write_bytes(raw)
    with pytest.raises(UserError, match="1_exp.npy: not an annotation"):
      load("affectnet", **dirs)
  header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776,)}"
  path.write_bytes(
    b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
  )
  with pytest.raises(UserError, match="1_exp.npy: not an annotation"):
    load("affectnet", **dirs)
  assert "unpickled" not in capsys.readouterr().out


def test_what_is_missing_of_affectnet_is_named(dirs, root, warned):
  write_affectnet(root, {"train_set": [0, 1], "val_set": [0]})
  (root / "train_set/annotations/1_exp.npy").unlink()
  assert targets(load("affectnet", **dirs), "train") == [0]
  assert "1 without annotation (train_set/images/1.jpg)" in warned()[0]
  (root / "val_set/images").rename(root / "val_set/pictures")
  with pytest.raises(UserError, match="recognized .* val_set/images is missi"):
    load("affectnet", **dirs)
  with pytest.raises(UserError, match="manual_dir=.*nowhere does not exist"):
    load("affectnet", **dirs | {"manual_dir": str(root / "nowhere")})


def test_jaffe_is_split_by_subject(dirs, root, warned):
  write_jaffe(root)
  seen = set()
  for fold in range(10):
    dataset = load("jaffe", **dirs, fold=fold, image_size=64)
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert sizes == {"train": 112, "validation": 14, "test": 14}
    arrays = dataset.split("test").arrays()
    assert arrays["image"][:, 0, 0, 0].tolist() == (arrays["row"] + 1).tolist()
    (subject,) = set(arrays["row"] // 14)
    assert subject not in set(dataset.split("train").arrays()["row"] // 14)
    seen.add(subject)
    assert arrays["target"].tolist() == [i // 2 for i in range(14)]
  assert seen == set(range(10))
  assert "anger 20 (official: 30)" in warned()[0]


def test_files_that_are_not_jaffes_are_said(dirs, root, warned):
  write_jaffe(root)
  save(root / "jaffe/holiday.png", color(0))
  load("jaffe", **dirs)
  assert "1 not named like KA.AN1.39.tiff (jaffe/holiday.png)" in warned()[0]
  with pytest.raises(UserError, match="fold=10 must be less than num_folds=10"):
    load("jaffe", **dirs, fold=10)


@pytest.mark.parametrize("name", ["rafdb", "affectnet", "jaffe"])
def test_without_a_release_the_error_says_what_to_get(tmp_path, name):
  with pytest.raises(UserError, match="no release of .*dataset.manual_dir"):
    load(name, data_dir=str(tmp_path / "prepared"))


def test_a_release_in_the_manual_folder_is_found(tmp_path):
  write_rafdb(tmp_path / "home/downloads/manual/rafdb")
  assert len(load("rafdb").split("train")) == 14
