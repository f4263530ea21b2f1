"""Tests of the command that aligns faces."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.datasets import folder_layout, synthetic_faces
from fer_jax.data.image_inputs import list_inputs
from fer_jax.errors import UserError
from fer_jax.faces import crop, detection
from fer_jax.faces.alignment import align_images
from fer_jax.faces.face import Face


def save(path, grey=100, size=(40, 30), **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", size, (grey, grey, grey)).save(path, **options)
  return path


class LightFaces:
  """A detector for which a face is what is lighter than 50."""

  def detect(self, image):
    """Returns one face, or none."""
    if image.mean() < 50:
      return []
    h, w, _ = image.shape
    return [Face((0.0, 0.0, float(w), float(h)), None, None, 1.0)]


def run(inputs, output, **options):
  images = list_inputs(inputs, output=output).images
  return align_images(images, LightFaces(), output, **options)


def pixels(path):
  with Image.open(path) as image:
    return image.format, image.mode, np.asarray(image)


@pytest.fixture
def root(tmp_path):
  save(tmp_path / "in/train/happy/a.jpg", 200)
  save(tmp_path / "in/train/happy/b.PNG", 150)
  save(tmp_path / "in/train/sad/a.webp", 120, size=(9, 300))
  save(tmp_path / "in/.trash/c.png")
  save(tmp_path / "in/train/._a.jpg")
  (tmp_path / "in/train/notes.txt").write_text("no image")
  return tmp_path / "in"


def test_folders_keep_their_structure(root, tmp_path):
  out = tmp_path / "out"
  counts = run([root], out, size=20)
  assert str(counts) == "aligned 3, no face 0, unreadable 0"
  written = sorted(out.rglob("*.png"))
  assert [path.relative_to(out).as_posix() for path in written] == [
    "train/happy/a.png",
    "train/happy/b.png",
    "train/sad/a.png",
  ]
  folders, others = folder_layout.class_folders(out)
  assert list(folders["train"]) == ["happy", "sad"] and not others
  for path, grey in zip(written, (200, 150, 120), strict=True):
    kind, mode, image = pixels(path)
    assert (kind, mode, image.shape) == ("PNG", "L", (20, 20))
    assert np.abs(image.astype(int) - grey).max() <= 2


def test_classes_of_several_folders_are_merged(tmp_path):
  for name in ("anna/joy/0.jpg", "anna/sad/1.jpg", "bob/joy/0.jpg"):
    save(tmp_path / name)
  out = tmp_path / "out"
  assert run([tmp_path / "anna", tmp_path / "bob"], out, size=20).aligned == 3
  folders, _ = folder_layout.class_folders(out)
  assert list(folders["train"]) == ["joy", "sad"]
  assert sorted(p.name for p in out.glob("joy/*")) == ["0-2.png", "0.png"]


def test_faces_that_were_not_written_again_are_listed(tmp_path, capsys):
  photos, out = tmp_path / "in", tmp_path / "out"
  for name in ("a/0.jpg", "a/1.jpg", "a/2.jpg", "b/1.jpg"):
    save(photos / name)
  run([photos], out)
  save(photos / "a/1.png")
  run([photos], out)
  assert "earlier" not in capsys.readouterr().err  # a/1-2.png is new.
  (photos / "a/0.jpg").rename(photos / "b/0.jpg")  # a corrected label
  save(photos / "a/2.jpg", 0)  # no face any more
  save(out / "a/mine.png")
  run([photos], out)
  (line,) = capsys.readouterr().err.splitlines()[-1:]
  assert line.startswith(f"{out}: not written again, from earlier runs:")
  assert " a/0.png, a/2.png; remove them unless" in line
  assert (out / "a/0.png").exists() and (out / "b/0.png").exists()


def test_color_and_size(tmp_path):
  image = Image.new("RGB", (30, 30), (250, 120, 60))
  image.save(tmp_path / "a.png")
  run([tmp_path / "a.png"], tmp_path / "out", size=64, color=True)
  _, mode, image = pixels(tmp_path / "out/a.png")
  assert mode == "RGB" and image.shape == (64, 64, 3)
  assert (image == (250, 120, 60)).all()


def test_exif_orientation_counts(tmp_path):
  upright = np.zeros((40, 40), np.uint8)
  upright[:20] = 255
  exif = Image.Exif()
  exif[0x0112] = 6  # To be turned clockwise by 90 degrees when shown.
  lying = Image.fromarray(np.rot90(upright).copy())
  lying.save(tmp_path / "a.jpg", exif=exif, quality=95)
  run([tmp_path / "a.jpg"], tmp_path / "out")
  _, _, image = pixels(tmp_path / "out/a.png")
  assert image[:20].min() > 240 and image[28:].max() < 15


def test_what_has_no_face_or_is_unreadable_is_listed(root, tmp_path, capsys):
  dark = save(root / "dark.png", 0)
  broken = root / "broken.jpg"
  broken.write_bytes(b"\xff\xd8 no more")
  counts = run([root], tmp_path / "out")
  assert str(counts) == "aligned 3, no face 1, unreadable 1"
  lines = capsys.readouterr().err.splitlines()
  assert f"{dark}: no face found" in lines
  assert any(line.startswith(f"{broken}: not a readable") for line in lines)
  assert not (tmp_path / "out/dark.png").exists()


def test_no_face_center_takes_the_middle(tmp_path):
  image = np.zeros((30, 60, 3), np.uint8)
  image[:, 15:45] = 40
  Image.fromarray(image).save(tmp_path / "a.png")
  inputs = [tmp_path / "a.png"]
  counts = run(inputs, tmp_path / "out", size=30, no_face="center")
  assert str(counts) == "aligned 0, no face 1, unreadable 0"
  assert (pixels(tmp_path / "out/a.png")[2] == 40).all()


def test_no_face_refuse_stops(tmp_path):
  dark = save(tmp_path / "a.png", 0)
  with pytest.raises(UserError, match=r"a\.png: no face.* no_face=skip"):
    run([dark], tmp_path / "out", no_face="refuse")
  assert not (tmp_path / "out").exists()


def test_the_sheet_shows_images_above_faces(tmp_path):
  for i in range(40):
    save(tmp_path / f"in/{i:02}.png", 100 + i, size=(48, 96))
    sheet = run([tmp_path / "in"], tmp_path / "out", with_sheet=True).sheet
  image = np.asarray(sheet)
  assert 20 <= len(np.unique(image[..., 0])) - 1 <= 36  # Of 40, evenly.
  assert image[48, 24, 0] == 100 and image[100 + 48, 24, 0] == 100
  assert image[48, 60, 0] == 255  # A tall image leaves room at its side.
  assert run([tmp_path / "in"], tmp_path / "out").sheet is None


def test_the_sheet_shows_faces_wherever_they_are(tmp_path, capsys):
  for i in range(40):
    save(tmp_path / f"in/{i:02}.png", 100 + i if i % 2 else 0, size=(48, 48))
  counts = run([tmp_path / "in"], tmp_path / "out", with_sheet=True)
  assert (counts.aligned, counts.no_face) == (20, 20)
  assert len(np.unique(np.asarray(counts.sheet)[..., 0])) == 20 + 1
  assert "no sheet" not in capsys.readouterr().err
  dark = [tmp_path / "in/00.png"]
  assert run(dark, tmp_path / "dark", with_sheet=True).sheet is None
  assert "no sheet is written" in capsys.readouterr().err


def test_inputs_are_never_overwritten(root, tmp_path):
  image = save(root / "train/happy/b.png", 77)
  before = image.read_bytes()
  link = tmp_path / "link"
  link.symlink_to(image.parent)
  inputs = (image, image.parent), (image, link), (root, root)
  for given, output in inputs:
    with pytest.raises(UserError, match="is an input"):
      run([given], output)
  assert image.read_bytes() == before


def test_an_output_inside_the_input_is_left_out(root):
  for _ in range(2):
    counts = run([root], root / "aligned")
    assert counts.aligned == 3
  assert not (root / "aligned/aligned").exists()


def test_faces_beside_their_photos_are_not_aligned_again(tmp_path):
  save(tmp_path / "a.jpg")
  for _ in range(2):
    assert run([tmp_path], tmp_path).aligned == 1
  assert not (tmp_path / "a.png.png").exists()


def test_two_images_of_one_name_give_two_faces(tmp_path):
  inputs = [save(tmp_path / name) for name in ("a.jpg", "a.png", "b/a.png")]
  assert run([inputs[0], *inputs], tmp_path / "out").aligned == 3
  found = sorted((tmp_path / "out").rglob("*.png"))
  assert [path.relative_to(tmp_path / "out").as_posix() for path in found] == [
    "a.jpg.png",
    "a.png.png",
    "b/a.png",
  ]


def test_a_face_of_another_photo_is_not_replaced(tmp_path):
  first = save(tmp_path / "a/1.jpg", 200)
  second = save(tmp_path / "b/1.jpg", 150)
  out = tmp_path / "out"
  run([first], out)
  face = (out / "1.png").read_bytes()
  with pytest.raises(
    UserError, match="a/1.jpg.*would replace it: give another"
  ):
    run([second], out)
  assert (out / "1.png").read_bytes() == face
  run([tmp_path / "a"], out)  # The same photo, named by its folder.


def test_missing_and_empty_inputs_are_told(tmp_path):
  with pytest.raises(UserError, match="nowhere does not exist"):
    list_inputs([tmp_path / "nowhere"])
  (tmp_path / "empty").mkdir()
  with pytest.raises(UserError, match=r"no images in .*\.png"):
    list_inputs([tmp_path / "empty"])


def test_a_place_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot write"):
    run([save(tmp_path / "a.png")], tmp_path / "file/out")


def test_an_interruption_leaves_no_half_file(tmp_path, monkeypatch):
  def interrupted(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, "replace", interrupted)
  with pytest.raises(KeyboardInterrupt):
    run([save(tmp_path / "a.png")], tmp_path / "out")
  assert not list((tmp_path / "out").glob("*.png"))


def command(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
  return subprocess.run(
    [sys.executable, "-m", "fer_jax.align", *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
  )


def test_the_command_aligns_a_drawn_face(tmp_path):
  pytest.importorskip("onnxruntime", reason="the extra `faces` is missing")
  (portrait,) = synthetic_faces.draw_faces(np.array([6]), 6, side=160)
  wall = np.full((200, 300, 3), 110, np.uint8)
  wall[20:180, 120:280] = portrait
  Image.fromarray(wall).save(tmp_path / "face.png")
  save(tmp_path / "wall.png")
  (tmp_path / "broken.png").write_bytes(b"\x89PNG")
  out, sheet = tmp_path / "out", tmp_path / "pictures/sheet.png"
  names = [tmp_path / f"{name}.png" for name in ("face", "wall", "broken")]
  (tmp_path / "links").mkdir()
  (tmp_path / "links/gone.png").symlink_to("nowhere.png")
  names.append(tmp_path / "links")
  done = command(*names, f"--output={out}", "--size=96", f"--sheet={sheet}")
  assert done.stdout == "aligned 1, no face 1, unreadable 2\n"
  assert done.returncode == 1 and "Traceback" not in done.stderr
  assert done.stderr.splitlines()[-1] == (
    "error: 2 of 4 images could not be read"
  )
  assert sheet.is_file()
  assert [path.name for path in out.glob("*.png")] == ["face.png"]
  _, mode, image = pixels(out / "face.png")
  assert mode == "L" and image.shape == (96, 96)
  # Cropped as `crop.align` does, which has tests of its own.
  (face,) = detection.create_detector().detect(wall)
  wanted = crop.align(wall, face, 96)
  assert np.abs(image.astype(int) - wanted[..., 0]).max() <= 1


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["--output=out"], "name images"),
    (["x.png"], "--output=DIR is missing"),
    (["x.png", "--output=out"], "x.png does not exist"),
    (["x.png", "--output=out", "--size=0"], "size"),
    ([__file__, "--output=out", "--sheet=sheet.txt"], "must end in .png"),
  ],
)
def test_bad_input_is_one_line(arguments, message):
  done = command(*arguments)
  assert done.returncode == 1 and done.stdout == ""
  (line,) = done.stderr.splitlines()
  assert line.startswith("error: ") and message in line


def test_the_sheet_overwrites_no_image(tmp_path):
  image = save(tmp_path / "a.png")
  done = command(image, f"--output={tmp_path / 'out'}", f"--sheet={image}")
  assert done.returncode == 1 and "is an input" in done.stderr
