"""Every form of the release is found and reads the same."""

import gzip
import lzma
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_releases import (
  FORMS,
  Face,
  all_faces,
  challenge_csv,
  image_files,
  tarred,
  write_files,
  zipped,
)

from fer_jax.data.datasets import (
  bounded_io,
  class_names,
  fer2013_csv,
  fer2013_releases,
)
from fer_jax.errors import UserError


@pytest.fixture
def faces():
  return all_faces()


def read(folder: Path) -> list[fer2013_csv.FaceRow]:
  return list(fer2013_releases.read(fer2013_releases.find([folder])[0]))


def expected(faces: list[Face], split: str) -> list[Face]:
  return [f for f in faces if class_names.FER2013_SPLITS[f.usage] == split]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(tmp_path, faces, form):
  write_files(tmp_path, FORMS[form](faces))
  rows = read(tmp_path)
  assert len(rows) == len(faces)
  for split in ("train", "validation", "test"):
    got = [row for row in rows if row.split == split]
    wanted = expected(faces, split)
    assert [row.label for row in got] == [face.label for face in wanted]
    for row, face in zip(got, wanted, strict=True):
      assert row.image.shape == (48, 48, 1) and row.image.dtype == np.uint8
      np.testing.assert_array_equal(row.image[..., 0], face.image)
      assert faces[row.row] is face


@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_found_by_its_own_path(tmp_path, faces, form):
  write_files(tmp_path, FORMS[form](faces))
  path = fer2013_releases.find([tmp_path])[0]
  assert fer2013_releases.find([path]) == [path]


def test_archives_are_not_extracted(tmp_path, faces):
  escape = {"../../fer2013.csv": challenge_csv(faces)}
  write_files(tmp_path, {"a/b/fer2013.tar.gz": tarred(escape, "w:gz")})
  assert len(read(tmp_path / "a/b")) == len(faces)
  assert [p for p in tmp_path.rglob("*") if p.is_file()] == [
    tmp_path / "a/b/fer2013.tar.gz"
  ]


def test_first_of_several_by_stated_order(tmp_path, faces):
  for form in ("folders", "tar.gz", "icml", "csv"):
    write_files(tmp_path, FORMS[form](faces))
  found = [path.name for path in fer2013_releases.find([tmp_path])]
  assert found == [
    "fer2013.csv",
    "icml_face_data.csv",
    "fer2013.tar.gz",
    tmp_path.name,
  ]


def test_the_users_folder_is_the_only_place_where_it_is_given(tmp_path, faces):
  manual = tmp_path / "home/downloads/manual"
  for folder in (manual, tmp_path / "mine"):
    write_files(folder, FORMS["csv"](faces))
  places = fer2013_releases.search_folders(str(tmp_path / "mine"), "")
  assert fer2013_releases.find(places) == [tmp_path / "mine/fer2013.csv"]
  assert (
    fer2013_releases.find(fer2013_releases.search_folders("", ""))[0].parent
    == manual
  )
  prepared = fer2013_releases.search_folders("", str(tmp_path / "prepared"))
  assert prepared == [tmp_path / "prepared/downloads/manual", manual]


def test_home_is_expanded_in_the_users_folder(tmp_path, faces, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  write_files(tmp_path / "mine", FORMS["csv"](faces))
  found = fer2013_releases.find(fer2013_releases.search_folders("~/mine", ""))
  assert found == [tmp_path / "mine/fer2013.csv"]


def test_archive_of_another_data_set_is_no_release(tmp_path):
  write_files(tmp_path, {"archive.zip": zipped({"cats/1.jpg": b"?"})})
  assert fer2013_releases.find([tmp_path]) == []
  with pytest.raises(UserError, match="holds neither fer2013.csv nor icml"):
    list(fer2013_releases.read(tmp_path / "archive.zip"))


@pytest.mark.parametrize("given", [False, True])
def test_missing_names_the_files_the_places_and_the_way_out(tmp_path, given):
  places = [tmp_path / "a", tmp_path / "b"]
  message = str(fer2013_releases.missing(places, given=given))
  assert "\n" not in message
  parts = [
    *(name for name in fer2013_releases.FILE_ORDER if name != "."),
    "the folders train and test",
    *map(str, places),
    "set dataset.manual_dir to",
  ]
  for part in parts:
    assert part in message
  assert ("unset dataset.manual_dir" in message) == given


def test_folder_that_does_not_exist_is_named_as_typed(tmp_path):
  typed = str(tmp_path / "flowers")
  with pytest.raises(UserError, match="fer2013.csv") as error:
    fer2013_releases.search_folders(typed, str(tmp_path))
  message = str(error.value)
  assert message.startswith(f"dataset.manual_dir={typed} does not exist")
  assert "\n" not in message


@pytest.mark.parametrize("as_zip", [False, True])
def test_wrong_image_is_named_by_folder_or_archive(tmp_path, faces, as_zip):
  name = "train/angry/Training_9.jpg"
  files = {**image_files(faces), name: b""}
  release = tmp_path
  if as_zip:
    files = {"archive.zip": zipped(files)}
    release = tmp_path / "archive.zip"
  write_files(tmp_path, files)
  with pytest.raises(UserError, match="not a readable image") as error:
    read(tmp_path)
  assert str(error.value).startswith(f"{release}/{name}: ")


def test_wrong_row_in_an_archive_names_the_member(tmp_path):
  table = b"emotion,pixels,Usage\n9,7 7,Training\n"
  write_files(
    tmp_path, {"fer2013.tar.gz": tarred({"fer2013/fer2013.csv": table}, "w:gz")}
  )
  with pytest.raises(
    UserError, match="fer2013.tar.gz/fer2013/fer2013.csv, line 2: 2 pixels"
  ):
    read(tmp_path)


@pytest.mark.parametrize(
  "form", ["gz", "xz", "tar.gz", "tar", "csv.zip", "folders zip"]
)
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.6, 0.95])
def test_file_cut_off_is_an_error_naming_it(tmp_path, faces, form, kept):
  ((name, content),) = FORMS[form](faces).items()
  write_files(tmp_path, {name: content[: int(len(content) * kept)]})
  with pytest.raises(UserError, match=name):
    list(fer2013_releases.read(tmp_path / name))


@pytest.mark.parametrize(
  ("name", "compress"),
  [("fer2013.csv.gz", gzip.compress), ("fer2013.csv.xz", lzma.compress)],
)
def test_damaged_byte_is_an_error_naming_the_file(
  tmp_path, faces, name, compress
):
  content = bytearray(compress(challenge_csv(faces)))
  content[len(content) // 2] ^= 0xFF
  (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError, match=name):
    read(tmp_path)


def test_unknown_kind_of_file_is_refused(tmp_path):
  (tmp_path / "fer2013.rar").write_bytes(b"?")
  with pytest.raises(UserError, match="fer2013.rar: not a release"):
    list(fer2013_releases.read(tmp_path / "fer2013.rar"))


def test_fingerprint_sees_a_change(tmp_path, faces):
  write_files(tmp_path, FORMS["folders"](faces))
  before = fer2013_releases.source_files(tmp_path).record()
  assert fer2013_releases.source_files(tmp_path).matches(before)
  (tmp_path / "train/angry/Training_0.jpg").unlink()
  assert not fer2013_releases.source_files(tmp_path).matches(before)


def png_of(width, height):
  """A PNG that only says it has so many pixels: a bomb's first bytes."""
  header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
  chunks = b""
  for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(99)))):
    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    chunks += len(content).to_bytes(4, "big") + kind + content + checksum
  return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("packed", [False, True])
def test_an_image_bomb_is_refused_before_it_is_decoded(tmp_path, packed):
  files = {"test/angry/PrivateTest_0.png": png_of(60_000, 60_000)}
  files["train/angry/Training_1.png"] = b"?"
  if packed:
    files = {"archive.zip": zipped(files)}
  write_files(tmp_path, files)
  (release,) = fer2013_releases.find([tmp_path])
  with pytest.raises(UserError, match="PrivateTest_0.png.*megapixels"):
    list(fer2013_releases.read(release))


def test_a_huge_member_of_a_zip_is_not_unpacked(tmp_path, monkeypatch):
  monkeypatch.setattr(bounded_io.read_member, "__defaults__", (1000,))
  files = {"train/angry/Training_0.png": bytes(2000)}
  write_files(tmp_path, {"archive.zip": zipped(files)})
  with pytest.raises(UserError, match="Training_0.png has 2,000 bytes, more"):
    list(fer2013_releases.read(tmp_path / "archive.zip"))


def test_postscript_is_not_interpreted(tmp_path):
  """Pillow would hand it to Ghostscript."""
  program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 48\n"
  for name in ("Training_0.png", "Training_0.jpg"):
    files = {f"train/angry/{name}": program}
    write_files(tmp_path, {"archive.zip": zipped(files)})
    with pytest.raises(UserError, match="not a readable image"):
      list(fer2013_releases.read(tmp_path / "archive.zip"))


def test_a_fifo_in_the_folders_is_no_image(tmp_path):
  write_files(tmp_path, FORMS["folders"](all_faces()))
  os.mkfifo(tmp_path / "train/angry/Training_9999.jpg")
  (release,) = fer2013_releases.find([tmp_path])
  assert len(list(fer2013_releases.read(release))) == 42


@pytest.mark.parametrize("suffix", ["", ".gz", ".zip"])
def test_kaggles_train_csv_is_all_training(tmp_path, suffix):
  table = b"emotion,pixels\n" + b"\n".join(
    line.rpartition(b",")[0]
    for line in FORMS["csv"](all_faces())["fer2013.csv"].splitlines()[1:]
  )
  pack: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zip": lambda t: zipped({"train.csv": t}),
  }
  write_files(tmp_path, {f"train.csv{suffix}": pack[suffix](table)})
  (release,) = fer2013_releases.find([tmp_path])
  faces = list(fer2013_releases.read(release))
  assert len(faces) == 42 and {face.split for face in faces} == {"train"}


@pytest.mark.parametrize(
  "files",
  [
    ["train/happy/im0.png", "test/happy/im0.png"],
    ["Training/happy/0.png", "Testing/happy/0.png"],
    ["Train/Happy/0.png", "Test/Happy/0.png"],
  ],
)
def test_other_class_folders_are_recognized(tmp_path, files):
  write_files(tmp_path, dict.fromkeys(files, b"?"))
  (release,) = fer2013_releases.find([tmp_path])
  with pytest.raises(UserError) as error:
    list(fer2013_releases.read(release))
  message = str(error.value)
  assert "laid out as train/CLASS/IMAGE" in message
  assert f"dataset.name=folder with dataset.manual_dir={tmp_path}" in message


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("test.csv", "test.csv was found there, which has no labels: predict"),
    (
      "train/happy/Training_0.jpg",
      "folder train was found there, but not both",
    ),
    ("train_set/annotations/0_exp.npy", "looks like a release of affectnet"),
  ],
)
def test_what_was_found_instead_of_a_release_is_said(tmp_path, name, message):
  write_files(tmp_path, {name: b"?"})
  assert fer2013_releases.find([tmp_path]) == []
  error = fer2013_releases.missing([tmp_path], given=True)
  assert message in str(error) and "\n" not in str(error)


def test_names_in_archives_never_leave_them(tmp_path):
  """Members are read by name, and nothing is ever extracted."""
  face = image_files(all_faces()[:1])
  ((name, content),) = face.items()
  hostile = {f"../../{name}": content, "/etc/train/angry/x": b"?"}
  write_files(tmp_path / "in", {"archive.zip": zipped(hostile)})
  before = sorted(tmp_path.rglob("*"))
  with pytest.raises(UserError, match="archive.zip: holds neither"):
    list(fer2013_releases.read(tmp_path / "in/archive.zip"))
  table = FORMS["csv"](all_faces())["fer2013.csv"]
  members = {"/fer2013.csv.bak": b"?", "../fer2013/fer2013.csv": table}
  write_files(tmp_path / "in", {"fer2013.tar.gz": tarred(members, "w:gz")})
  before.append(tmp_path / "in/fer2013.tar.gz")
  assert len(list(fer2013_releases.read(before[-1]))) == 42
  assert sorted(tmp_path.rglob("*")) == sorted(before)
