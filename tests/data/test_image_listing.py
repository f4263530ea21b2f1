"""The listing of folders: every file is taken, or skipped with a reason."""

import os
import sys

import pytest

from fer_jax.data import image_listing, image_reader
from fer_jax.data.image_listing import holds_only_made, list_images
from fer_jax.output_folder import OutputFolder


def touch(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b"?")


def names(listing, root):
  return [path.relative_to(root).as_posix() for path in listing.images]


def reasons(listing, root):
  return {
    item.path.relative_to(root).as_posix(): item.reason
    for item in listing.skipped
  }


def test_every_file_is_taken_or_skipped_with_a_reason(tmp_path):
  touch(tmp_path, "b.png", "a/B.JPG", "a/c/d.webp", "notes.txt", "a/x.heic")
  touch(tmp_path, ".DS_Store", "a/._b.png", "__MACOSX/b.png", "Thumbs.db")
  listing = list_images(tmp_path)
  heic = ["a/x.heic"] if image_reader.reads_heic() else []
  expected_names = ["a/B.JPG", "a/c/d.webp", *heic, "b.png"]
  assert names(listing, tmp_path) == expected_names
  expected = {"notes.txt": image_listing.NOT_AN_IMAGE}
  if not image_reader.reads_heic():
    expected["a/x.heic"] = image_listing.HEIC_REASON
    assert "fer_jax[heic]" in image_listing.describe_skipped(listing.skipped)
  assert reasons(listing, tmp_path) == expected


def test_links_are_followed_once(tmp_path):
  touch(tmp_path, "real/1.png", "elsewhere/2.png")
  root = tmp_path / "root"
  touch(root, "b/3.png")
  (root / "a").symlink_to(root / "b")  # sorts first, but b keeps its name
  (root / "loop").symlink_to(root)
  (root / "far").symlink_to(tmp_path / "elsewhere")
  (root / "file.png").symlink_to(tmp_path / "real/1.png")
  listing = list_images(root)
  assert names(listing, root) == ["b/3.png", "far/2.png", "file.png"]
  assert reasons(listing, root) == {
    "a": image_listing.SEEN_BEFORE,
    "loop": image_listing.SEEN_BEFORE,
  }


def test_broken_links_and_fifos_do_not_hang(tmp_path):
  (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
  (tmp_path / "happy").symlink_to(tmp_path / "no_folder")
  (tmp_path / "loop").symlink_to("loop")
  os.mkfifo(tmp_path / "pipe.png")
  touch(tmp_path, "a.png")
  listing = list_images(tmp_path)
  assert names(listing, tmp_path) == ["a.png"]
  assert reasons(listing, tmp_path) == {
    "gone.png": image_listing.BROKEN_LINK,
    "happy": image_listing.BROKEN_LINK,
    "loop": image_listing.BROKEN_LINK,
    "pipe.png": image_listing.NOT_REGULAR,
  }
  images = [item.path.name for item in listing.skipped if item.is_image]
  assert images == ["gone.png", "pipe.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode there")
def test_names_that_are_not_utf8_are_listed_and_printable(tmp_path):
  name = os.fsdecode(b"caf\xe9.png")
  touch(tmp_path, name, os.fsdecode(b"r\xe9sum\xe9.txt"))
  listing = list_images(tmp_path)
  assert names(listing, tmp_path) == [name]
  line = image_listing.describe_skipped(listing.skipped, tmp_path)
  assert line == r"1 not an image (r\xe9sum\xe9.txt)"
  line.encode()  # any UTF-8 terminal or file can hold it


def make(folder, name, kind):
  with OutputFolder(folder, kind=kind).write(name) as temporary:
    temporary.write_bytes(b"made")


def test_what_the_package_made_is_no_image_but_faces_are(tmp_path):
  touch(tmp_path, "a/1.png")
  make(tmp_path / "audit", "conflicts.png", "audit")
  make(tmp_path / "faces", "1.png", "face")
  make(tmp_path / "both", "drawn.png", "drawing")
  make(tmp_path / "both", "1.png", "face")
  for name in ("config.json", "checkpoints/1/state", "curves.png"):
    touch(tmp_path, f"runs/resnet/{name}")
  listing = list_images(tmp_path)
  assert names(listing, tmp_path) == ["a/1.png", "both/1.png", "faces/1.png"]
  made = ("audit/conflicts.png", "both/drawn.png", "runs/resnet")
  assert reasons(listing, tmp_path) == dict.fromkeys(made, image_listing.MADE)
  only = [f.name for f in tmp_path.iterdir() if holds_only_made(f)]
  assert sorted(only) == ["audit", "runs"]
  assert holds_only_made(tmp_path / "runs/resnet")
  (tmp_path / "empty").mkdir()
  assert not holds_only_made(tmp_path / "empty")
  touch(tmp_path, "runs/photo.png")
  assert not holds_only_made(tmp_path / "runs")


def test_many_names_are_counted():
  line = image_listing.some([str(i) for i in range(1500)])
  assert line.endswith("9 and 1,490 more")


def test_a_missing_folder_is_an_error(tmp_path):
  with pytest.raises(FileNotFoundError):
    list_images(tmp_path / "nowhere")
