"""Image files of FER2013: read by split and number, or named as wrong."""

import numpy as np
import pytest
from tiny_releases import Face, all_faces, image_files, make_faces

from fer_jax.data.datasets import class_names, fer2013_csv
from fer_jax.data.datasets import fer2013_folders as reader
from fer_jax.errors import UserError


def read(files: dict[str, bytes]) -> list[fer2013_csv.FaceRow]:
  return list(reader.read("archive.zip", list(files), files.__getitem__))


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("train/angry/Training_9.jpg", b"", "not a readable image"),
    ("train/angry/Training_9.jpg", b"GIF89a", "not a readable image"),
    (
      "train/angry/9.jpg",
      b"",
      "not FER2013's folder release.*dataset.name=folder",
    ),
    ("train/bored/Training_9.jpg", b"", "no class is called 'bored'"),
  ],
)
def test_wrong_file_is_named(name, content, message):
  with pytest.raises(UserError, match=message) as error:
    read({**image_files(all_faces()), name: content})
  assert str(error.value).startswith(f"archive.zip/{name}: ")


def test_truncated_and_odd_sized_images_are_named():
  (face,) = make_faces("Training")
  ((name, content),) = image_files([face]).items()
  with pytest.raises(UserError, match=f"{name}: not a readable image"):
    read({name: content[:-900], "test/x/y": b""})
  wide = Face("Training", 0, np.zeros((48, 50), np.uint8))
  with pytest.raises(UserError, match=f"{name}: 50x48 pixels instead of 48x48"):
    read(image_files([wide]))


def test_what_is_not_read_is_listed(caplog):
  others = ["val/angry/Training_7.jpg", "train/angry/Training_8.bmp"]
  ignored = ["train/", "train/angry/.DS_Store"]
  files = image_files(all_faces())
  names = [*files, others[0], *ignored]
  rows = list(reader.read("a.zip", names, files.__getitem__, others[1:]))
  assert len(rows) == len(files)
  (warning,) = [record.getMessage() for record in caplog.records]
  assert warning.startswith("a.zip: skipped 2 not named ")
  assert warning.endswith(f" ({', '.join(sorted(others))})")


def test_of_two_copies_one_is_read(caplog):
  files = image_files(all_faces())
  copies = {f"fer2013/{name}": content for name, content in files.items()}
  numbers = [row.row for row in read(copies | files)]
  assert numbers == [row.row for row in read(files)]
  (warning,) = [record.getMessage() for record in caplog.records]
  assert (
    warning == f"archive.zip: left out {len(files)} second copies of images"
  )
  other = {"copy/train/happy/Training_0.jpg": files[next(iter(files))]}
  with pytest.raises(UserError, match="image is in another class, too: train/"):
    read(files | other)


def test_class_folders_go_by_name():
  faces = all_faces()
  renamed = {
    name.replace("happy", "Happiness").replace("angry", "Angry"): content
    for name, content in image_files(faces).items()
  }
  assert {row.row: row.label for row in read(renamed)} == {
    i: face.label for i, face in enumerate(faces)
  }
  assert all(
    class_names.label_of_folder(name) == i
    for i, name in enumerate(class_names.FER2013_CLASSES)
  )


def test_release_without_images_is_refused():
  with pytest.raises(UserError, match="archive.zip: no images named train/"):
    read({"train/.DS_Store": b"?", "train/angry/._Training_0.jpg": b"?"})
