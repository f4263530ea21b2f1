"""Folders of images: every layout, kind of image and mistake."""

import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
from image_releases import targets
from PIL import Image

from fer_jax.data import image_listing, image_reader, load
from fer_jax.data.datasets.folder import ImageFolder
from fer_jax.data.datasets.source_files import SourceFiles
from fer_jax.data.splits import example_digest, fingerprint_of
from fer_jax.errors import UserError
from fer_jax.output_folder import OutputFolder


def grey(value, size=(48, 48)):
  return Image.new("L", size, value)


def save(path, image=None, **kwargs):
  path.parent.mkdir(parents=True, exist_ok=True)
  (image or grey(100)).save(path, **kwargs)


@pytest.mark.parametrize("validation", ["validation", "valid", "val", "Val"])
def test_split_folders(dirs, root, validation, warned):
  save(root / "train/sad/1.png", grey(1))
  save(root / "train/happy/2.PNG", grey(2))
  save(root / "train/happy/3.bmp", grey(3))
  save(root / validation / "sad/4.png", grey(4))
  save(root / validation / "happy/4.png", grey(5))
  save(root / "test/happy/5.png", grey(6))
  save(root / "test/sad/5.png", grey(7))
  dataset = load("folder", **dirs)
  assert dataset.class_names == ("happy", "sad")
  assert dataset.image_shape == (48, 48, 1)
  assert targets(dataset, "train") == [0, 0, 1]
  assert targets(dataset, "validation") == [0, 1]
  rows = [
    (int(row), int(image[0, 0, 0]))
    for split in ("train", "validation", "test")
    for arrays in [dataset.split(split).arrays()]
    for row, image in zip(arrays["row"], arrays["image"], strict=True)
  ]
  assert rows == [(0, 2), (1, 3), (2, 1), (3, 5), (4, 4), (5, 6), (6, 7)]
  builder = ImageFolder(
    manual_dir=dirs["manual_dir"], data_dir=dirs["data_dir"]
  )
  assert builder.files()[4] == root / validation / "sad/4.png"
  assert dataset.file_names[4] == f"{validation}/sad/4.png"
  assert warned() == []


def test_class_folders_alone_are_training(dirs, root):
  for i in range(4):
    save(root / f"b/{i}.png", grey(i))
    save(root / f"a/{i}.png", grey(10 + i))
  dataset = load("folder", **dirs)
  assert list(dataset.splits) == ["train"] and len(dataset.split("train")) == 8
  held = load("folder", **{**dirs, "manual_dir": f"{root}//"}, holdout_test=0.5)
  for name in ("train", "test"):
    arrays = held.split(name).arrays()
    for row, image in zip(arrays["row"], arrays["image"], strict=True):
      with Image.open(root / held.file_names[row]) as file:
        np.testing.assert_array_equal(file, image[..., 0])
  held = load("folder", **dirs, holdout_validation=0.25)
  assert sorted(targets(held, "validation")) == [0, 1]


def test_hidden_files_are_nothing_and_others_are_counted(dirs, root, warned):
  for name in ("a/1.png", "b/1.png"):
    save(root / "train" / name)
  for name in (".DS_Store", ".git/x", "train/.DS_Store", "train/a/._1.png"):
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_bytes(b"?")
  load("folder", **dirs)
  assert warned() == []
  (root / "train/a/inner").mkdir()
  for name in ("LICENSE", "train/notes.txt", "train/a/notes.txt"):
    (root / name).write_bytes(b"?")
  (root / "docs").mkdir()
  save(root / "train/a/2.png")  # a change, so that it is prepared again
  load("folder", **dirs)
  (warning,) = warned()
  assert warning == (
    f"{root}: skipped 3 not in a class folder (LICENSE, docs, train/notes.txt);"
    " 1 not an image (train/a/notes.txt)"
  )


def test_drawings_are_not_trained_on(dirs, root):
  for name in ("a/1.png", "b/1.png"):
    save(root / name)
  before = load("folder", **dirs).description()
  for folder, names in (("out", ("1.png", "x/2.png")), ("b", ("1-2.png",))):
    output = OutputFolder(root / folder)
    for name in names:
      with output.write(name) as temporary:
        save(temporary, grey(7))
  save(root / "out/._1.png")  # as macOS leaves it
  assert load("folder", **dirs).description() == before
  skipped = [
    item.path.name for item in ImageFolder(**dirs).find_in(root).skipped
  ]
  assert skipped == ["out", "1-2.png"]
  save(root / "out/mine.png")
  assert load("folder", **dirs).class_names == ("a", "b", "out")


def test_runs_and_reports_in_the_folder_are_no_classes(dirs, root):
  for name in ("a/1.png", "b/1.png"):
    save(root / name)
  before = load("folder", **dirs).description()
  save(root / "runs/resnet18-folder/curves.png")
  (root / "runs/resnet18-folder/config.json").write_text("{}")
  (root / "runs/resnet18-folder/checkpoints").mkdir()
  with OutputFolder(root / "audit", kind="audit").write("a.csv") as temporary:
    temporary.write_text("made")
  assert load("folder", **dirs).description() == before
  skipped = ImageFolder(**dirs).find_in(root).skipped
  assert [item.path.name for item in skipped] == ["audit", "runs"]
  assert {item.reason for item in skipped} == {image_listing.MADE}


def test_aligned_faces_that_are_reduced_are_warned_of(dirs, root, warned):
  faces = OutputFolder(root, kind="face")
  for name in ("a/1.png", "b/1.png"):
    with faces.write(name) as temporary:
      save(temporary, Image.new("RGB", (64, 64)))
  load("folder", **dirs, image_size=64, color=True)
  assert warned() == []
  load("folder", **dirs)
  assert warned() == [
    f"{root}: its faces are 64 x 64 pixels, color, but are read as 48 x 48,"
    " gray: set dataset.image_size=64 and dataset.color=True to keep them"
  ]
  load("folder", **dirs, image_size=64)
  assert warned()[1].endswith(", gray: set dataset.color=True to keep them")


def test_class_without_images(dirs, root, warned):
  for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png"):
    save(root / name)
  (root / "validation/b").mkdir(parents=True)
  assert list(load("folder", **dirs).splits) == ["train", "test"]
  (warning,) = warned()
  for place in ("validation/a", "validation/b", "test/b"):
    assert place in warning
  (root / "train/b/1.png").unlink()
  with pytest.raises(UserError, match="no images of class 'b' to train on"):
    load("folder", **dirs)


@pytest.mark.parametrize(
  "files, message",
  [
    ([], "is no folder: give ROOT of ROOT/CLASS/IMAGE, or .*holdout_valid"),
    (["1.png"], "two or more class folders are needed and there is none"),
    (["train/1.png"], "train: two or more class folders .* there is none"),
    (
      ["train_set/a/1.png", "train_set/b/1.png", "test_set/a/1.png"],
      "test_set, train_set look like splits, not classes: name them train, val",
    ),
    (["fold1/a/1.png", "Fold-2/a/1.png"], "Fold-2, fold1 look like splits"),
    (["a/1.png"], "two or more class folders are needed and there is a: "),
    (
      ["test/a/1.png", "val/a/1.png"],
      "folder val and test was recognized, but there is no train",
    ),
    (
      ["train/a/1.png", "train/b/1.png", "val/a/1.png", "valid/a/1.png"],
      "val and valid are both the validation split: keep one",
    ),
    (
      ["train/a/1.png", "train/b/1.png", "test/A/1.png"],
      "test: no class A in train, whose classes are a, b: rename or remove",
    ),
  ],
)
def test_wrong_layout(dirs, root, files, message):
  for name in files:
    save(root / name)
  with pytest.raises(UserError, match=message) as error:
    load("folder", **dirs)
  assert "\n" not in str(error.value)


def test_folder_that_may_not_be_read_is_named(dirs, root, monkeypatch):
  save(root / "a/1.png")

  def refused(path):
    raise PermissionError(13, "Permission denied", str(path))

  monkeypatch.setattr("fer_jax.data.datasets.folder_layout.visible", refused)
  with pytest.raises(UserError, match="cannot read .*Permission denied"):
    load("folder", **dirs)


def test_manual_dir_is_required(dirs):
  with pytest.raises(UserError, match="folder needs dataset.manual_dir"):
    load("folder", data_dir=dirs["data_dir"])


@pytest.mark.parametrize(
  "options, message",
  [
    ({"image_size": 7}, "dataset.image_size=7 must be an integer"),
    ({"image_size": 48.0}, "dataset.image_size=48.0 must be an integer"),
    ({"color": "red"}, "dataset.color=red must be True or False"),
    ({"unreadable": "ignore"}, "'ignore': choose one of refuse, skip"),
    ({"fold": 1}, "unknown option of dataset folder 'fold'"),
  ],
)
def test_wrong_options(dirs, root, options, message):
  for name in ("a/1.png", "b/1.png"):
    save(root / name)
  with pytest.raises(UserError, match=message):
    load("folder", **dirs, **options)


def test_size_and_colour_are_prepared_on_their_own(dirs, root):
  save(root / "a/1.jpg", Image.new("RGB", (96, 60), (250, 10, 10)))
  save(root / "b/1.jpg", Image.new("RGB", (20, 30), (10, 10, 250)))
  dataset = load("folder", **dirs, image_size=16, color=True)
  assert dataset.image_shape == (16, 16, 3)
  red, blue = dataset.split("train").arrays()["image"][:, 8, 8].astype(int)
  assert np.abs(red - (250, 10, 10)).max() < 4
  assert np.abs(blue - (10, 10, 250)).max() < 4
  grey = load("folder", **dirs).split("train").arrays()["image"]
  assert grey.shape == (2, 48, 48, 1)


def one_image(dirs, root, image, name="1.png", **kwargs):
  """Returns what becomes of an image, `[side side c]`."""
  options = {k: kwargs.pop(k) for k in ("image_size", "color") if k in kwargs}
  save(root / "a" / name, image, **kwargs)
  save(root / "b/1.png")
  dataset = load("folder", **dirs, **options)
  return dataset.split("train").arrays()["image"][0]


def test_image_of_the_size_is_left_as_it_is(dirs, root):
  pixels = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
  got = one_image(dirs, root, Image.fromarray(pixels))
  np.testing.assert_array_equal(got[..., 0], pixels)


def test_middle_square_is_taken(dirs, root):
  pixels = np.zeros((48, 144), np.uint8)
  pixels[:, 48:96] = np.random.default_rng(0).integers(1, 256, (48, 48))
  got = one_image(dirs, root, Image.fromarray(pixels))
  np.testing.assert_array_equal(got[..., 0], pixels[:, 48:96])


def test_shrinking_smooths(dirs, root):
  stripes = np.zeros((192, 192), np.uint8)
  stripes[:, ::2] = 200
  got = one_image(dirs, root, Image.fromarray(stripes))
  assert abs(int(got[24, 24, 0]) - 100) < 5 and got.std() < 10


def test_exif_turns_the_image_upright(dirs, root):
  pixels = np.zeros((48, 48), np.uint8)
  pixels[:24] = 255
  turned = Image.fromarray(pixels).rotate(90)
  exif = Image.Exif()
  exif[0x0112] = 6  # to be turned by 90 degrees clockwise
  got = one_image(dirs, root, turned, "1.jpg", exif=exif, quality=95)
  assert np.abs(got[..., 0].astype(int) - pixels).mean() < 4
  assert got[:20].min() > 240


@pytest.mark.parametrize("name", ["1.png", "1.tif", "1.pgm"])
def test_sixteen_bits_keep_their_range(dirs, root, name):
  values = np.linspace(0, 65535, 48 * 48).reshape(48, 48).astype(np.uint16)
  got = one_image(dirs, root, Image.fromarray(values), name)
  np.testing.assert_array_equal(got[..., 0], np.round(values / 257))


def test_transparent_is_white(dirs, root):
  image = Image.new("RGBA", (48, 48), (9, 9, 9, 0))
  image.paste((60, 60, 60, 255), (0, 0, 24, 48))
  got = one_image(dirs, root, image)[..., 0]
  assert got[5, 5] == 60 and got[5, 40] == 255


def test_palette_gives_its_colours(dirs, root):
  image = Image.new("P", (48, 48), 1)
  image.putpalette([0, 0, 0, 200, 30, 40])
  got = one_image(dirs, root, image, color=True)
  assert got[0, 0].tolist() == [200, 30, 40]


def test_palette_with_a_transparent_entry(dirs, root):
  image = Image.new("P", (48, 48), 1)
  image.putpalette([0, 0, 0, 200, 30, 40])
  got = one_image(dirs, root, image, "1.gif", color=True, transparency=1)
  assert got[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("mode, value", [("1", 1), ("CMYK", (0, 0, 0, 0))])
def test_other_modes(dirs, root, mode, value):
  image = Image.new(mode, (48, 48), value)
  got = one_image(dirs, root, image, "1.tif")
  assert got.min() == 255


def test_phone_photographs_of_several_pictures_give_the_first(dirs, root):
  first, second = grey(10, (64, 48)), grey(200, (64, 48))
  got = one_image(
    dirs,
    root,
    first,
    "1.jpg",
    format="MPO",
    save_all=True,
    append_images=[second],
  )
  assert (got == 10).all()


@pytest.fixture
def with_unreadable(root):
  """Class folders, of which four images cannot be read; returns their names."""
  for name in ("a/5.png", "b/5.png"):
    save(root / "train" / name)
    save(root / "test" / name)
  noise = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
  save(root / "train/a/cut.png", Image.fromarray(noise))
  content = (root / "train/a/cut.png").read_bytes()
  (root / "train/a/cut.png").write_bytes(content[:500])
  (root / "train/a/empty.jpg").write_bytes(b"")
  save(root / "test/b/float.tif", Image.new("F", (48, 48), 0.5))
  (root / "test/b/text.png").write_text("?")
  return ["train/a/cut.png", "train/a/empty.jpg", "test/b/float", "test/b/text"]


def test_all_unreadable_files_are_refused_at_once(dirs, root, with_unreadable):
  with pytest.raises(UserError, match=": 4 unreadable images: ") as error:
    load("folder", **dirs)
  message = str(error.value)
  for name in (*with_unreadable, "dataset.unreadable=skip", "floating-point"):
    assert name in message
  assert "not an image (" in message and "\n" not in message


def test_unreadable_files_are_left_out_and_said(
  dirs, root, with_unreadable, warned
):
  dataset = load("folder", **dirs, unreadable="skip")
  assert targets(dataset, "train") == targets(dataset, "test") == [0, 1]
  # A row's number is its file's, whether the ones before it were read or not.
  assert dataset.split("test").arrays()["row"].tolist() == [4, 5]
  (warning,) = warned()
  for name in (f"{root}: left out 4 unreadable images", *with_unreadable):
    assert name in warning


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("unreadable", ["refuse", "skip"])
def test_split_of_unreadable_files_only(dirs, root, split, unreadable, warned):
  for name in ("train/a/1.png", "train/b/1.png", "test/a/1.png"):
    save(root / name)
  for path in (root / split).glob("*/*"):
    path.write_bytes(b"?")
  if (split, unreadable) == ("test", "skip"):
    dataset = load("folder", **dirs, unreadable=unreadable)
    assert list(dataset.splits) == ["train"]
    return
  message = "no image of class 'a' in train" if unreadable == "skip" else ""
  number = {"train": "2 unreadable images:", "test": "1 unreadable image:"}
  with pytest.raises(UserError, match=f"{message}.*{number[split]}"):
    load("folder", **dirs, unreadable=unreadable)


def test_many_unreadable_files_are_counted(dirs, root):
  for name in "ab":
    save(root / name / "1.png")
  for i in range(13):
    (root / f"a/x{i:02}.png").write_bytes(b"?")
  with pytest.raises(UserError, match="13 unreadable .*and 3 more") as error:
    load("folder", **dirs)
  assert "x09.png" in str(error.value) and "x10.png" not in str(error.value)


def test_decompression_bomb_is_unreadable(dirs, root, monkeypatch):
  for name in "ab":
    save(root / name / "1.png")
  save(root / "a/2.png", grey(0, (200, 200)))
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 48 * 48)
  with pytest.raises(UserError, match=r"a/2.png \(.*exceeds limit"):
    load("folder", **dirs)


def test_same_files_are_prepared_once(dirs, root, capsys, monkeypatch):
  for name in "ab":
    save(root / name / "1.png")
  load("folder", **dirs)
  assert f"prepared folder from {root} in " in capsys.readouterr().err
  with monkeypatch.context() as patch:
    patch.setattr("fer_jax.data.image_reader.read_square", None)
    load("folder", **dirs)
  assert capsys.readouterr().err == ""


@pytest.mark.parametrize("change", ["add", "move"])
def test_changed_files_are_prepared_again(dirs, root, change, capsys):
  for name in ("a/1.png", "b/1.png", "b/2.png"):
    save(root / name)
  load("folder", **dirs)
  capsys.readouterr()
  if change == "add":
    save(root / "a/3.png")
  else:
    (root / "b/2.png").rename(root / "a/2.png")
  dataset = load("folder", **dirs)
  assert "replacing a copy of other files" in capsys.readouterr().err
  wanted = {"add": [0, 0, 1, 1], "move": [0, 0, 1]}
  assert targets(dataset, "train") == wanted[change]


def swap(a, b):
  spare = a.with_name("spare")
  a.rename(spare)
  b.rename(a)
  spare.rename(b)


def values(dataset):
  arrays = dataset.split("train").arrays()
  pairs = zip(arrays["target"], arrays["image"][:, 0, 0, 0], strict=True)
  return [(int(target), int(value)) for target, value in pairs]


CHANGES = {
  "files swapped with mv": lambda root: swap(
    root / "a/1.png", root / "b/1.png"
  ),
  "class folders swapped with mv": lambda root: swap(root / "a", root / "b"),
  "an older file of the same size, as cp -p leaves it": lambda root: (
    shutil.copy2(root.parent / "old.png", root / "b/1.png")
  ),
  "an older file renamed there, as rsync -t leaves it": lambda root: (
    root.parent / "old.png"
  ).rename(root / "b/1.png"),
  "contents overwritten and the time set back": lambda root: overwrite(
    root / "b/1.png", (root.parent / "old.png").read_bytes()
  ),
}


def overwrite(path, content):
  status = path.stat()
  path.write_bytes(content)
  os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("cheap", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_files_of_the_same_names_and_sizes_are_noticed(
  dirs, root, change, cheap, monkeypatch
):
  if not cheap:  # as for releases of many megabytes
    monkeypatch.setattr("fer_jax.data.datasets.source_files._CHEAP_BYTES", 0)
  for i, name in enumerate(("a/1.png", "b/1.png")):
    save(root / name, grey(i + 1), compress_level=0)
    os.utime(root / name, ns=(0, 1 << 60))  # all of one time
  save(root.parent / "old.png", grey(3), compress_level=0)
  os.utime(root.parent / "old.png", ns=(0, 1 << 59))
  sizes = {path.stat().st_size for path in root.rglob("*.png")}
  assert len(sizes) == 1  # so that only contents differ
  assert values(load("folder", **dirs)) == [(0, 1), (1, 2)]
  CHANGES[change](root)
  wanted = [(0, 2), (1, 1)] if "swapped" in change else [(0, 1), (1, 3)]
  assert values(load("folder", **dirs)) == wanted


@pytest.mark.parametrize("cheap", [True, False])
def test_files_that_are_only_copied_are_not_prepared_again(
  dirs, root, capsys, cheap, monkeypatch
):
  if not cheap:
    monkeypatch.setattr("fer_jax.data.datasets.source_files._CHEAP_BYTES", 0)
  for name in ("a/1.png", "b/1.png"):
    save(root / name)
  load("folder", **dirs)
  shutil.copytree(root, root.parent / "copy")
  shutil.rmtree(root)
  (root.parent / "copy").rename(root)
  capsys.readouterr()
  load("folder", **dirs)
  assert capsys.readouterr().err == ""
  with monkeypatch.context() as patch:  # The new times are remembered.
    if not cheap:
      patch.setattr(SourceFiles, "contents", None)
    load("folder", **dirs)


def test_verify_reads_the_contents(dirs, root, monkeypatch):
  monkeypatch.setattr("fer_jax.data.datasets.source_files._CHEAP_BYTES", 0)
  for name in ("a/1.png", "b/1.png"):
    save(root / name)
  load("folder", **dirs)
  read, contents = [], SourceFiles.contents

  def counted(self):
    read.append(self)
    return contents(self)

  monkeypatch.setattr(SourceFiles, "contents", counted)
  load("folder", **dirs)
  assert not read
  load("folder", **dirs, verify=True)
  assert read


def test_a_class_may_be_called_like_a_split(dirs, root):
  for name in ("test/1.png", "training/2.png", "happy/3.png"):
    save(root / "train" / name)
  assert load("folder", **dirs).class_names == ("happy", "test", "training")


def test_nested_folders_belong_to_their_class(dirs, root, warned):
  for name in ("happy/S001/1.png", "happy/S002/x/1.png", "sad/2.png"):
    save(root / "train" / name)
  assert targets(load("folder", **dirs), "train") == [0, 0, 1]
  assert warned() == []


def test_training_and_testing_are_splits(dirs, root):
  for name in ("Training/a/1.png", "Training/b/1.png", "Testing/a/1.png"):
    save(root / name)
  assert {k: len(s) for k, s in load("folder", **dirs).splits.items()} == {
    "train": 2,
    "test": 1,
  }


def test_class_folders_that_are_broken_links_are_named(dirs, root):
  (root / "train").mkdir(parents=True)
  for name in ("happy", "sad"):
    (root / "train" / name).symlink_to(root / "moved" / name)
  with pytest.raises(
    UserError, match=r"there is none \(broken links: happy, s"
  ):
    load("folder", **dirs)


def test_links_are_followed_and_broken_ones_respect_unreadable(
  dirs, root, tmp_path, warned
):
  save(tmp_path / "elsewhere/1.png")
  save(root / "train/b/1.png")
  (root / "train/a").symlink_to(tmp_path / "elsewhere")
  assert targets(load("folder", **dirs), "train") == [0, 1]
  (root / "train/b/gone.png").symlink_to(tmp_path / "nowhere")
  os.mkfifo(root / "train/b/pipe.png")
  with pytest.raises(UserError) as error:
    load("folder", **dirs)
  for part in ("1 broken link (train/b/gone.png)", "pipe.png", "=skip"):
    assert part in str(error.value)
  dataset = load("folder", **dirs, unreadable="skip")
  assert targets(dataset, "train") == [0, 1]
  assert "gone.png" in warned()[-1] and "pipe.png" in warned()[-1]


def test_heic_without_its_package_names_the_extra(dirs, root, monkeypatch):
  monkeypatch.setattr("fer_jax.data.image_reader.reads_heic", lambda: False)
  for name in ("a/1.png", "b/1.png"):
    save(root / name)
  (root / "b/IMG_1.HEIC").write_bytes(b"?")
  with pytest.raises(UserError, match=r"pip install 'fer_jax\[heic\]'.*IMG_1"):
    load("folder", **dirs)
  dataset = load("folder", **dirs, unreadable="skip")
  assert len(dataset.split("train")) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode there")
def test_names_that_are_not_utf8(dirs, root, capsys, warned):
  for name in (b"fr\xf6hlich/caf\xe9.png", b"sad/1.png"):
    save(root / os.fsdecode(name))
  (root / os.fsdecode(b"sad/r\xe9sum\xe9.txt")).write_bytes(b"?")
  dataset = load("folder", **dirs)
  assert dataset.class_names == (r"fr\xf6hlich", "sad")
  assert dataset.description()["class_names"][0].encode()
  (warning,) = warned()
  assert r"r\xe9sum\xe9.txt" in warning
  (root / os.fsdecode(b"sad/caf\xe9.png")).write_bytes(b"?")
  with pytest.raises(UserError, match=r"sad/caf\\xe9.png \(") as error:
    load("folder", **dirs)
  str(error.value).encode()


def test_decomposed_names_are_one_class(dirs, root):
  save(root / "train/fr\u00f6hlich/1.png")
  save(root / "train/sad/1.png")
  save(root / "test/fro\u0308hlich/1.png")  # as macOS writes it
  assert targets(load("folder", **dirs), "test") == [0]


@pytest.mark.parametrize(
  "files, message",
  [
    (["1.png", "2.png"], "there is none .2 images are in no class folder."),
    (["train_set/annotations/0_exp.npy"], "looks like a release of affectnet"),
    (["EmoLabel/list_patition_label.txt"], "looks like a release of rafdb"),
    (["fer2013.csv"], "looks like a release of fer2013: use dataset.name=fer"),
  ],
)
def test_a_layout_that_is_recognized_is_said(dirs, root, files, message):
  for name in files:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(b"?")
  with pytest.raises(UserError, match=message):
    load("folder", **dirs)


@pytest.mark.parametrize("data_dir", ["", "prepared", "sad/prepared"])
def test_prepared_data_do_not_become_a_class(dirs, root, data_dir):
  save(root / "happy/1.png")
  save(root / "sad/1.png")
  inside = dirs | {"data_dir": str(root / data_dir)}
  with pytest.raises(
    UserError, match="lies among the class folders of dataset"
  ):
    load("folder", **inside)
  assert sorted(path.name for path in root.iterdir()) == ["happy", "sad"]
  assert load("folder", **dirs).class_names == ("happy", "sad")


def test_files_that_change_while_another_run_prepares_are_said(dirs, root):
  save(root / "happy/1.png")
  save(root / "sad/1.png")
  builder = ImageFolder(**dirs)
  builder.found()  # as a run that then waits
  save(root / "happy/0.png")
  with pytest.raises(UserError, match="changed while this run waited"):
    builder.prepare()
  assert len(load("folder", **dirs).file_names) == 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space")])
def test_an_interrupted_preparation_is_resumed(
  dirs, root, monkeypatch, capsys, error
):
  for i in range(40):
    save(root / f"{'ab'[i % 2]}/{i:02}.png", grey(i))
  (root / "a/broken.png").write_bytes(b"?")
  expected = values(load("folder", **dirs, unreadable="skip"))
  shutil.rmtree(dirs["data_dir"])
  monkeypatch.setattr("fer_jax.data.datasets.record_writer._SHARD_BYTES", 9000)
  read_square, read = image_reader.read_square, []

  def interrupted(path, size, *, color):
    read.append(path.name)
    if len(read) == 30:
      raise error
    return read_square(path, size, color=color)

  with monkeypatch.context() as patch:
    patch.setattr(image_reader, "read_square", interrupted)
    with pytest.raises((KeyboardInterrupt, UserError)):
      load("folder", **dirs, unreadable="skip")
  first = set(read)
  read.clear()

  def counted(path, size, *, color):
    read.append(path.name)
    return read_square(path, size, color=color)

  monkeypatch.setattr(image_reader, "read_square", counted)
  capsys.readouterr()
  dataset = load("folder", **dirs, unreadable="skip")
  assert values(dataset) == expected
  assert len(read) < 41 and first - set(read)  # the first shards were kept
  direct = ImageFolder(**dirs, unreadable="skip").prepare()
  assert len(direct.info.splits["train"].shard_lengths) > 3
  train = dataset.split("train")
  pairs = zip(train.arrays()["image"], train.targets(), strict=True)
  recomputed = fingerprint_of(example_digest(*pair) for pair in pairs)
  assert train.fingerprint == recomputed


def test_a_killed_preparation_is_resumed(dirs, root, monkeypatch):
  for i in range(40):
    save(root / f"{'ab'[i % 2]}/{i:02}.png", grey(i))
  shards = "fer_jax.data.datasets.record_writer._SHARD_BYTES"
  code = f"""
import os
from unittest import mock
from fer_jax.data import image_reader, load
read_square, read = image_reader.read_square, []
def killed(*args, **options):
  read.append(args)
  if len(read) == 30:
    os.kill(os.getpid(), 9)
  return read_square(*args, **options)
with mock.patch("{shards}", 9000):
  image_reader.read_square = killed
  load("folder", **{dirs!r})
"""
  ended = subprocess.run([sys.executable, "-c", code], check=False)
  assert ended.returncode == -9
  monkeypatch.setattr(shards, 9000)
  read_square, read = image_reader.read_square, []

  def counted(path, size, *, color):
    read.append(path.name)
    return read_square(path, size, color=color)

  monkeypatch.setattr(image_reader, "read_square", counted)
  resumed = values(load("folder", **dirs))
  assert 10 <= len(read) < 40  # Complete shards are not made again.
  shutil.rmtree(dirs["data_dir"])
  assert resumed == values(load("folder", **dirs))


def test_a_full_disk_is_one_line(dirs, root):
  rng = np.random.default_rng(0)
  for i in range(40):
    pixels = rng.integers(0, 256, (48, 48), dtype=np.uint8)
    save(root / f"{'ab'[i % 2]}/{i:02}.png", Image.fromarray(pixels))
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
  try:
    with pytest.raises(
      UserError, match="cannot prepare .*too large.*data_dir"
    ) as error:
      load("folder", **dirs)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert "\n" not in str(error.value)
  assert len(load("folder", **dirs).split("train")) == 40


def test_roots_of_one_name_do_not_overwrite_each_other(
  dirs, tmp_path, capsys, monkeypatch
):
  roots = [tmp_path / "one/my faces", tmp_path / "two/my faces"]
  for i, root in enumerate(roots):
    for name in "ab":
      save(root / name / "1.png", grey(i))
  for _ in range(2):
    for i, root in enumerate(roots):
      dataset = load("folder", **dirs | {"manual_dir": str(root)})
      assert dataset.split("train").arrays()["image"].max() == i
  assert capsys.readouterr().err.count("prepared folder from") == 2
  folders = [p.name for p in (tmp_path / "prepared/folder").iterdir()]
  assert sum(name.startswith("my_faces-") for name in folders) == 2
  # The same folder by another name is the same data.
  monkeypatch.chdir(roots[0])
  load("folder", **dirs | {"manual_dir": "../my faces"})
  assert capsys.readouterr().err.count("prepared folder from") == 0
