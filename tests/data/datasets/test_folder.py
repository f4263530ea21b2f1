"""Folders of images: every layout, kind of image and mistake."""

import logging
import os

import numpy as np
import pytest
from PIL import Image

from fer_jax.data import load
from fer_jax.data.datasets.folder import ImageFolder
from fer_jax.errors import UserError


@pytest.fixture
def root(tmp_path):
  return tmp_path / "faces"


@pytest.fixture
def dirs(tmp_path, root):
  return {"manual_dir": str(root), "data_dir": str(tmp_path / "prepared")}


@pytest.fixture
def warned(caplog):
  caplog.set_level(logging.WARNING, logger="absl")
  return lambda: [r.getMessage() for r in caplog.records]


def grey(value, size=(48, 48)):
  return Image.new("L", size, value)


def save(path, image=None, **kwargs):
  path.parent.mkdir(parents=True, exist_ok=True)
  (image or grey(100)).save(path, **kwargs)


def targets(dataset, split):
  return dataset.split(split).arrays()["target"].tolist()


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
  assert warned() == []


def test_class_folders_alone_are_training(dirs, root):
  for i in range(4):
    save(root / f"b/{i}.png", grey(i))
    save(root / f"a/{i}.png", grey(10 + i))
  dataset = load("folder", **dirs)
  assert list(dataset.splits) == ["train"] and len(dataset.split("train")) == 8
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
  for name in ("LICENSE", "train/notes.txt", "train/b/Thumbs.db"):
    (root / name).write_bytes(b"?")
  (root / "docs").mkdir()
  save(root / "train/a/2.png")  # a change, so that it is prepared again
  load("folder", **dirs)
  (warning,) = warned()
  assert warning == (
    f"{root}: ignored 5 that are no images in a class folder: "
    "LICENSE, docs, train/notes.txt, train/a/inner, train/b/Thumbs.db"
  )


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
    (["a/1.png"], "two or more class folders are needed and there is a: "),
    (["test/a/1.png", "val/a/1.png"], "is val and test but no train"),
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
  with pytest.raises(UserError, match="cannot look into .*Permission denied"):
    load("folder", **dirs)


def test_manual_dir_is_required(dirs):
  with pytest.raises(UserError, match="folder needs dataset.manual_dir"):
    load("folder", data_dir=dirs["data_dir"])


@pytest.mark.parametrize(
  "options, message",
  [
    ({"image_size": 7}, "dataset.image_size=7 must be a whole number"),
    ({"image_size": 48.0}, "dataset.image_size=48.0 must be a whole number"),
    ({"color": "red"}, "dataset.color=red must be true or false"),
    ({"unreadable": "ignore"}, "'ignore': choose one of refuse, skip"),
    ({"fold": 1}, "unknown option of data set folder 'fold'"),
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
  for name in (f"left out of {root}: 4 unreadable images", *with_unreadable):
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


@pytest.mark.parametrize("change", ["add", "move", "touch"])
def test_changed_files_are_prepared_again(dirs, root, change, capsys):
  for name in ("a/1.png", "b/1.png", "b/2.png"):
    save(root / name)
  load("folder", **dirs)
  capsys.readouterr()
  if change == "add":
    save(root / "a/3.png")
  elif change == "move":
    (root / "b/2.png").rename(root / "a/2.png")
  else:
    os.utime(root / "b/2.png", ns=(0, 1 << 62))
  dataset = load("folder", **dirs)
  assert "instead of data from another release" in capsys.readouterr().err
  wanted = {"add": [0, 0, 1, 1], "move": [0, 0, 1], "touch": [0, 1, 1]}
  assert targets(dataset, "train") == wanted[change]


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
