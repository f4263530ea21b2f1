"""CK+: every release and option, and no subject in two splits."""

import os
import types
import zipfile

import numpy as np
import pytest
from PIL import Image
from tiny_releases import pixels, zipped

from fer_jax.data import load
from fer_jax.data.datasets import class_names
from fer_jax.data.datasets.ckplus import CkPlus
from fer_jax.errors import UserError
from fer_jax.faces import crop, detection
from fer_jax.faces.face import Face

NAMES = ("anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
SEQUENCES = [
  (f"S{subject:03}", f"{sequence:03}", (subject + sequence) % 7)
  for subject in (5, 10, 11, 22, 501)
  for sequence in (1, 2, 4)
]
NUM_FRAMES = 5


@pytest.fixture
def raw(tmp_path):
  (tmp_path / "raw").mkdir()
  return tmp_path / "raw"


@pytest.fixture
def dirs(tmp_path):
  return {
    "manual_dir": str(tmp_path / "raw"),
    "data_dir": str(tmp_path / "prepared"),
    "num_folds": 5,
  }


@pytest.fixture
def official_counts(monkeypatch):
  """Makes the tiny release the official one."""
  counts = np.bincount([label for *_, label in SEQUENCES], minlength=7)
  monkeypatch.setattr(class_names, "CKPLUS_COUNTS", tuple(counts.tolist()))


def frame_name(subject, sequence, number):
  return f"{subject}/{sequence}/{subject}_{sequence}_{number:08}"


def points_at(x, y):
  """68 landmarks around a point, the eyes 24 pixels apart and level."""
  points = np.full((68, 2), (x, y), float)
  points[:17, 0] += np.linspace(-20, 20, 17)
  points[36:42] += (-12, -8)
  points[42:48] += (12, -8)
  points[48:68, 1] += 20
  return points


def points_text(points):
  return "".join(f"   {x:.7e}   {y:.7e}\n" for x, y in points)


def write(path, text):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


def write_tree(
  root, images="cohn-kanade-images", emotion="Emotion", landmarks="Landmarks"
):
  """Writes the official tree; a frame's grey tells sequence and frame."""
  for i, (subject, sequence, label) in enumerate(SEQUENCES):
    for number in range(1, NUM_FRAMES + 1):
      name = frame_name(subject, sequence, number)
      file = root / images / f"{name}.png"
      file.parent.mkdir(parents=True, exist_ok=True)
      grey = 10 * i + number
      mode, value = ("RGB", (grey,) * 3) if i % 2 else ("L", grey)
      Image.new(mode, (96, 72), value).save(file)
      if landmarks:
        text = points_text(points_at(40, 36))
        write(root / landmarks / f"{name}_landmarks.txt", text)
    name = frame_name(subject, sequence, NUM_FRAMES)
    write(root / emotion / f"{name}_emotion.txt", f"   {label + 1:.7e}\n")
  # What the zips also hold: sequences without labels, and a Mac's files.
  (root / emotion / "S005/009").mkdir()
  (root / images / "S005/009").mkdir()
  (root / images / "S005/001/.DS_Store").write_bytes(b"?")
  (root / images / ".DS_Store").write_bytes(b"?")


def image_files(side=48):
  """Names and contents of CK+48, of the same sequences as the tree."""
  files = {}
  for i, (subject, sequence, label) in enumerate(SEQUENCES):
    for number in range(NUM_FRAMES - 2, NUM_FRAMES + 1):
      name = f"{NAMES[label]}/{subject}_{sequence}_{number:08}.png"
      files[name] = Image.new("L", (side, side), 10 * i + number)
  return files


def write_images(root, side=48):
  for name, image in image_files(side).items():
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    image.save(root / name)


def write_zip(path, root):
  files = [p for p in sorted(root.glob("*/*")) if p.is_file()]
  members = {f"CK+48/{p.relative_to(root)}": p.read_bytes() for p in files}
  junk = {"__MACOSX/CK+48/anger/._S005_001_00000003.png": b"?"}
  path.write_bytes(zipped(members | junk))


def write_table(path, usages=("Training", "PublicTest", "PrivateTest")):
  lines = ["emotion,pixels,Usage"]
  for usage in usages:
    for label in range(8):
      image = np.full((48, 48), 10 * label, np.uint8)
      lines.append(f"{label},{pixels(image)},{usage}")
  write(path, "\n".join([*lines, ""]))


def rows_of(dataset):
  """Returns row -> (grey in the middle, target), and row -> split."""
  rows, splits = {}, {}
  for split in dataset.splits:
    arrays = dataset.split(split).arrays()
    for row, image, target in zip(
      *(arrays[key] for key in ("row", "image", "target")), strict=True
    ):
      rows[int(row)] = int(image[24, 24, 0]), int(target)
      splits[int(row)] = split
  return rows, splits


def expected_rows(last_frames=3):
  rows = [
    (10 * i + number, label)
    for i, (_, _, label) in enumerate(SEQUENCES)
    for number in range(NUM_FRAMES - last_frames + 1, NUM_FRAMES + 1)
  ]
  return dict(enumerate(rows))


def write_release(form, root):
  if form == "tree":
    write_tree(root)
  elif form == "images":
    write_images(root)
  else:
    write_images(root / "unpacked")
    write_zip(root / "CK+48.zip", root / "unpacked")


@pytest.mark.parametrize("form", ["tree", "images", "zip"])
def test_forms_give_the_same_rows_and_folds(
  dirs, raw, form, warned, official_counts
):
  write_release(form, raw)
  dataset = load("ckplus", **dirs)
  assert dataset.class_names == NAMES and dataset.image_shape == (48, 48, 1)
  rows, splits = rows_of(dataset)
  assert rows == expected_rows()
  # One group of three sequences in each of validation and test.
  sizes = {split: len(dataset.split(split)) for split in dataset.splits}
  assert sizes == {"train": 27, "validation": 9, "test": 9}
  assert warned() == []
  other = raw.parent / "other"
  write_tree(other)
  elsewhere = load("ckplus", **dirs | {"manual_dir": str(other)})
  assert rows_of(elsewhere) == (rows, splits)


def test_each_subject_is_tested_once_and_in_one_split(dirs, raw):
  write_images(raw)
  tested, validated = [], []
  for fold in range(5):
    load("ckplus", **dirs, fold=fold)
    builder = CkPlus(
      manual_dir=dirs["manual_dir"],
      data_dir=dirs["data_dir"],
      num_folds=5,
      fold=fold,
    )
    subjects = builder.subjects()
    sets = {split: set(names) for split, names in subjects.items()}
    assert len(subjects["train"]) == 27 and len(sets["train"]) == 3
    assert not sets["train"] & sets["test"]
    assert not sets["train"] & sets["validation"]
    tested.append(sets["test"])
    validated.append(sets["validation"])
    # A row's subject is the one that its number stands for.
    rows = builder.as_data_source("test")
    for row, subject in zip(rows, subjects["test"], strict=True):
      assert SEQUENCES[int(row["row"]) // 3][0] == subject
  everyone = {subject for subject, *_ in SEQUENCES}
  assert set().union(*tested) == everyone and sum(map(len, tested)) == 5
  assert validated == [*tested[1:], tested[0]]


def test_the_seed_draws_the_groups(dirs, raw):
  write_images(raw)
  splits = [
    tuple(sorted(rows_of(load("ckplus", **dirs, fold_seed=seed))[1].items()))
    for seed in range(4)
  ]
  assert len(set(splits)) > 1


@pytest.mark.parametrize("form", ["tree", "images"])
def test_last_frames(dirs, raw, form, warned, official_counts):
  write_release(form, raw)
  rows, _ = rows_of(load("ckplus", **dirs, last_frames=1))
  assert rows == expected_rows(last_frames=1)
  assert warned() == []


def test_neutral_is_the_first_frame(dirs, raw, warned, official_counts):
  write_tree(raw)
  dataset = load("ckplus", **dirs, num_classes=8, last_frames=2)
  assert dataset.class_names == (*NAMES, "neutral")
  rows, splits = rows_of(dataset)
  assert len(rows) == 3 * len(SEQUENCES)
  for i, (_, _, label) in enumerate(SEQUENCES):
    wanted = [(10 * i + 1, 7), (10 * i + 4, label), (10 * i + 5, label)]
    assert [rows[3 * i + j] for j in range(3)] == wanted
  assert warned() == []
  # Neutral faces do not change the groups.
  _, without = rows_of(load("ckplus", **dirs))
  assert [splits[3 * i] for i in range(15)] == [
    without[3 * i] for i in range(15)
  ]


def test_ck48_has_no_neutral_and_three_frames(dirs, raw):
  write_images(raw)
  with pytest.raises(UserError, match="no neutral faces, so .*num_classes"):
    load("ckplus", **dirs, num_classes=8)
  with pytest.raises(UserError, match="last_frames=4 must be at most that"):
    load("ckplus", **dirs, last_frames=4)


def test_of_two_copies_in_a_zip_one_is_read(dirs, raw, warned, official_counts):
  write_images(raw / "unpacked")
  names = {
    f"{copy}CK+48/{path.relative_to(raw / 'unpacked')}": path.read_bytes()
    for copy in ("", "ck/")
    for path in (raw / "unpacked").glob("*/*")
  }
  (raw / "archive.zip").write_bytes(zipped(names))
  assert rows_of(load("ckplus", **dirs))[0] == expected_rows()
  assert warned() == []


@pytest.mark.parametrize(
  "names",
  [
    (
      "extended-cohn-kanade-images/cohn-kanade-images",
      "Emotion_labels/Emotion",
    ),
    ("extended-cohn-kanade-images", "Emotion_labels", "Landmarks/Landmarks"),
  ],
)
def test_folders_as_the_zips_name_them(dirs, raw, names):
  write_tree(raw, *names)
  assert rows_of(load("ckplus", **dirs))[0] == expected_rows()


@pytest.mark.parametrize("folder", ["ckplus", "CK+", "CK+48"])
def test_folder_below_the_given_one(dirs, raw, folder):
  write_images(raw / folder)
  assert rows_of(load("ckplus", **dirs))[0] == expected_rows()


def test_the_tree_is_taken_before_others(dirs, raw, capsys):
  write_tree(raw)
  write_images(raw / "CK+48")
  write_table(raw / "ckextended.csv")
  load("ckplus", **dirs)
  others = f"(not {raw}/CK+48, {raw}/ckextended.csv)"
  assert f"prepared ckplus from {raw} {others} in" in capsys.readouterr().err


def test_faces_are_cut_by_the_landmarks(dirs, raw):
  write_tree(raw)
  rng = np.random.default_rng(0)
  frame = rng.integers(0, 256, (72, 96), dtype=np.uint8)
  name = frame_name("S005", "001", NUM_FRAMES)
  Image.fromarray(frame).save(raw / f"cohn-kanade-images/{name}.png")
  points = points_at(50, 30)
  landmarks = raw / f"Landmarks/{name}_landmarks.txt"
  landmarks.write_text(points_text(points))
  dataset = load("ckplus", **dirs)
  images = {
    int(row): image
    for split in dataset.splits.values()
    for arrays in [split.arrays()]
    for row, image in zip(arrays["row"], arrays["image"], strict=True)
  }
  wanted = crop.align_from_landmarks(frame[..., None], points, 48)
  np.testing.assert_array_equal(images[2], wanted)


@pytest.fixture
def detector(monkeypatch):
  """Finds the same face in every frame but those of the greys it is given."""
  face = Face((20.0, 10.0, 40.0, 48.0), (30.0, 30.0), (50.0, 30.0), 1.0)
  blind_to: set[int] = set()

  def detect(image):
    assert image.shape == (72, 96, 1) and image.dtype == np.uint8
    return [] if image.max() in blind_to else [face]

  found = types.SimpleNamespace(detect=detect)
  monkeypatch.setattr(detection, "create_detector", lambda: found)
  return blind_to


def test_faces_without_landmarks_are_detected(
  dirs, raw, detector, warned, official_counts
):
  write_tree(raw, landmarks="")
  write(raw / "Landmarks/S005/009/x", "?")  # of unlabelled sequences only
  assert rows_of(load("ckplus", **dirs))[0] == expected_rows()
  assert warned() == []
  detector.add(33)
  dirs["data_dir"] += "_again"
  with pytest.raises(UserError, match="S010_001_00000003.png: no face found"):
    load("ckplus", **dirs)


def test_some_frames_without_landmarks_are_said(
  dirs, raw, detector, warned, official_counts
):
  write_tree(raw)
  name = frame_name("S010", "002", NUM_FRAMES)
  (raw / f"Landmarks/{name}_landmarks.txt").unlink()
  assert rows_of(load("ckplus", **dirs))[0] == expected_rows()
  (warning,) = warned()
  assert "1 of 45 frames have no landmarks; a detector found" in warning


@pytest.mark.parametrize(
  "file, content, message",
  [
    ("Emotion/{}_emotion.txt", "", "'' must be a number from 0 to 7"),
    ("Emotion/{}_emotion.txt", " 8.0e+00", "'8.0e.00' must be a number from"),
    ("Emotion/{}_emotion.txt", "1.5", "'1.5' must be a number"),
    ("Emotion/{}_emotion.txt", "happy", "'happy' must be a number"),
    ("Landmarks/{}_landmarks.txt", "1 2\n3 4\n", "4 numbers instead of 68"),
    ("Landmarks/{}_landmarks.txt", "1 nan\n" * 68, "instead of 68 finite"),
    ("Landmarks/{}_landmarks.txt", "1 x\n" * 68, "could not convert .*'x'"),
    ("cohn-kanade-images/{}.png", "?", "not a readable image"),
  ],
)
def test_wrong_file_of_the_tree_is_named(dirs, raw, file, content, message):
  write_tree(raw)
  file = file.format(frame_name("S011", "004", NUM_FRAMES))
  (raw / file).write_text(content)
  with pytest.raises(UserError, match=f"{file}: .*{message}"):
    load("ckplus", **dirs)


def test_neutral_label_is_no_row(dirs, raw):
  write_tree(raw)
  name = frame_name("S005", "001", NUM_FRAMES)
  (raw / f"Emotion/{name}_emotion.txt").write_text("   0.0000000e+00\n")
  rows, _ = rows_of(load("ckplus", **dirs))
  assert len(rows) == 42 and rows[0] == expected_rows()[3]


def test_incomplete_tree(dirs, raw):
  write_tree(raw)
  with pytest.raises(UserError, match="001: 5 frames, but the last 5 and the"):
    load("ckplus", **dirs, last_frames=5, num_classes=8)
  assert len(rows_of(load("ckplus", **dirs, last_frames=5))[0]) == 75
  (raw / "cohn-kanade-images/S005/001").rename(raw / "elsewhere")
  with pytest.raises(UserError, match="S005/001: 0 frames, but the last 3 are"):
    load("ckplus", **dirs)
  for file in raw.glob("Emotion/*/*/*.txt"):
    file.unlink()
  with pytest.raises(UserError, match="Emotion: no label files named S005/001"):
    load("ckplus", **dirs)
  (raw / "Emotion").rename(raw / "Emotions")
  with pytest.raises(UserError, match="no folder Emotion.*Emotion_labels.zip"):
    load("ckplus", **dirs)


@pytest.mark.parametrize("form", ["images", "zip"])
def test_wrong_file_of_ck48_is_named(dirs, raw, form):
  root = raw / "unpacked"
  write_images(root)

  def refused(message):
    if form == "zip":
      write_zip(raw / "archive.zip", root)
    where = {"zip": raw / "archive.zip", "images": root}[form]
    with pytest.raises(UserError, match=message) as error:
      load("ckplus", **dirs | {"manual_dir": str(where)})
    assert str(where) in str(error.value)

  file = root / "happy/S005_022_00000017.png"
  file.write_bytes(b"?")
  refused("S005_022_00000017.png: not a readable image")
  Image.new("L", (40, 50)).save(file)
  refused("S005_022_00000017.png: 40x50 pixels instead of 48x48")
  file.rename(root / "happy/face.png")
  refused("happy/face.png: the name must be like S010_004")
  (root / "happy/face.png").rename(root / "happy/S005_001_00000009.png")
  refused("sequence S005_001 is in two classes, (happy and|.* and happy)")


def test_unknown_class_of_ck48_is_named(dirs, raw):
  write_images(raw)
  (raw / "neutral").mkdir()
  Image.new("L", (48, 48)).save(raw / "neutral/S005_001_00000001.png")
  with pytest.raises(
    UserError, match="no class is called 'neutral': there are"
  ):
    load("ckplus", **dirs)


def test_broken_zip(dirs, raw):
  write_images(raw / "unpacked")
  write_zip(raw / "CK+48.zip", raw / "unpacked")
  whole = (raw / "CK+48.zip").read_bytes()
  given = dirs | {"manual_dir": str(raw / "CK+48.zip")}
  (raw / "CK+48.zip").write_bytes(whole[:-100])
  with pytest.raises(UserError, match="CK.48.zip: damaged or truncated"):
    load("ckplus", **given)
  with zipfile.ZipFile(raw / "CK+48.zip", "w") as archive:
    archive.writestr("notes.txt", "?")
  with pytest.raises(UserError, match="no images named CLASS/S010_004"):
    load("ckplus", **given)


def test_counts_other_than_the_official_are_said(dirs, raw, warned):
  write_images(raw)
  load("ckplus", **dirs)
  (warning,) = warned()
  differs = (
    f"{raw} differs from the official CK+: it has anger 6 (official: 135)"
  )
  assert differs in warning
  assert "surprise 9 (official: 249)" in warning and "\n" not in warning


def test_table_has_its_own_splits(dirs, raw, warned):
  write_table(raw / "ckextended.csv")
  del dirs["num_folds"]
  dataset = load("ckplus", **dirs)
  rows, splits = rows_of(dataset)
  # Numbers of the column: anger, disgust, fear, happy, sadness, surprise,
  # neutral (left out), contempt.
  wanted = dict(zip((0, 1, 2, 3, 4, 5, 7), (0, 2, 3, 4, 5, 6, 1), strict=True))
  assert rows == {
    8 * usage + code: (10 * code, label)
    for usage in range(3)
    for code, label in wanted.items()
  }
  assert list(splits.values()) == [
    split for split in ("train", "validation", "test") for _ in range(7)
  ]
  (warning,) = warned()
  assert "anger 3 (official: 45)" in warning and "neutral" not in warning
  dataset = load("ckplus", **dirs, num_classes=8)
  assert [target for _, target in rows_of(dataset)[0].values()][6] == 7
  assert "neutral 3 (official: 593)" in warned()[1]
  builder = CkPlus(manual_dir=dirs["manual_dir"], data_dir=dirs["data_dir"])
  assert not any(builder.subjects().values())


@pytest.mark.parametrize(
  "option", [{"fold": 0}, {"fold": 3}, {"num_folds": 5}, {"last_frames": 1}]
)
def test_table_has_no_folds(dirs, raw, option):
  write_table(raw / "ckextended.csv")
  (name,) = option
  del dirs["num_folds"]
  message = f"tells no subjects .*: unset dataset.{name} to"
  with pytest.raises(UserError, match=message):
    load("ckplus", **dirs, **option)


@pytest.mark.parametrize(
  "old, new, message",
  [
    ("emotion,pixels,Usage", "emotion,pixels", "line 1: no column Usage in"),
    ("\n1,", "\n8,", "line 3: emotion '8' must be 0 to 7"),
    ("\n1,10 ", "\n1,256 ", "line 3: pixel '256' is not a number"),
    ("\n1,10 ", "\n1,", "line 3: 2303 pixels instead of 2304"),
    ("PublicTest\n", "Public\n", "line 10: Usage 'Public' must be one of"),
    ("Training\n1,", "Training,x\n1,", "line 2: 4 fields instead of 3"),
    ("Training\n1,", "Training\n1\n1,", "line 3: 1 fields instead of 3"),
    (
      "\n1,10 ",
      "\n1," + "10 " * 50_000,
      "line 3: a line of more than 65,536 bytes",
    ),
  ],
)
def test_wrong_row_of_the_table_is_named(dirs, raw, old, new, message):
  write_table(raw / "ckextended.csv")
  text = (raw / "ckextended.csv").read_text()
  assert old in text
  (raw / "ckextended.csv").write_text(text.replace(old, new, 1))
  del dirs["num_folds"]
  with pytest.raises(UserError, match=f"ckextended.csv, .*{message}"):
    load("ckplus", **dirs)


def test_empty_table(dirs, raw):
  write(raw / "ckextended.csv", "")
  del dirs["num_folds"]
  with pytest.raises(
    UserError, match="line 1: no column emotion and no pixels"
  ):
    load("ckplus", **dirs)


@pytest.mark.parametrize(
  "options, message",
  [
    ({"num_folds": 2}, "num_folds=2 must be an integer >= 3"),
    ({"fold": -1}, "fold=-1 must be an integer >= 0"),
    ({"fold": 5}, "fold=5 must be less than num_folds=5"),
    ({"fold": 1.0}, "fold=1.0 must be an integer"),
    ({"fold_seed": -1}, "fold_seed=-1 must be"),
    ({"last_frames": 0}, "last_frames=0 must be an integer >= 1"),
    ({"num_classes": 6}, "num_classes=6 must be 7, or 8 with neutral"),
    ({"num_folds": 6}, "num_folds=6 needs as many subjects, but there are 5"),
    ({"folds": 5}, "unknown option of dataset ckplus 'folds'"),
  ],
)
def test_wrong_options(dirs, raw, options, message):
  write_images(raw)
  with pytest.raises(UserError, match=message):
    load("ckplus", **dirs | options)


def test_missing_release(dirs, raw, tmp_path):
  with pytest.raises(UserError) as error:
    load("ckplus", **dirs)
  for part in (
    f"no release of CK+ in {raw}: ",
    "https://www.jeffcohn.net/Resources/",
    "Kaggle",
    "Emotion_labels.zip",
    "unset dataset.manual_dir",
  ):
    assert part in str(error.value)
  assert "\n" not in str(error.value)
  raw.rmdir()
  with pytest.raises(UserError, match="no release of CK. in .*/raw: "):
    load("ckplus", **dirs)
  with pytest.raises(UserError, match="downloads/manual") as error:
    load("ckplus", data_dir=dirs["data_dir"])
  assert "manual_dir away" not in str(error.value)
  write(tmp_path / "notes.txt", "?")
  with pytest.raises(UserError, match="notes.txt: not a release of CK"):
    load("ckplus", **dirs | {"manual_dir": str(tmp_path / "notes.txt")})


def test_place_that_cannot_be_looked_into_is_named(dirs, raw, monkeypatch):
  write_images(raw)

  def refused(path):
    raise PermissionError(13, "Permission denied", str(path))

  monkeypatch.setattr("fer_jax.data.datasets.folder_layout.visible", refused)
  with pytest.raises(UserError, match="cannot look for CK.: .*denied"):
    load("ckplus", **dirs)


def test_prepared_once_and_again_when_the_release_changes(
  dirs, raw, monkeypatch, capsys
):
  write_tree(raw)
  load("ckplus", **dirs)
  with monkeypatch.context() as patch:
    patch.setattr("fer_jax.data.datasets.ckplus_releases.read", None)
    load("ckplus", **dirs)
  name = frame_name("S005", "001", NUM_FRAMES)
  (raw / f"Emotion/{name}_emotion.txt").write_text("   5.0000000e+00\n")
  capsys.readouterr()
  rows, _ = rows_of(load("ckplus", **dirs))
  assert rows[0][1] == 4
  assert "replacing a copy of other files" in capsys.readouterr().err
  (raw / "Emotion").rename(raw.parent / "Emotion")
  del dirs["manual_dir"]
  assert len(rows_of(load("ckplus", **dirs))[0]) == 45


@pytest.mark.parametrize("zipped_release", [False, True])
@pytest.mark.parametrize(
  "rename", [str.title, str.upper, {"happy": "Happiness", "anger": "Angry"}.get]
)
def test_folders_of_ckplus48_in_any_case_or_synonym(
  dirs, raw, rename, zipped_release
):
  write_images(raw / "CK+48")
  expected = rows_of(load("ckplus", **dirs))
  for name in NAMES:
    (raw / "CK+48" / name).rename(raw / "CK+48" / (rename(name) or f"{name} "))
  if zipped_release:
    write_zip(raw / "CK+48.zip", raw / "CK+48")
    (raw / "CK+48").rename(raw.parent / "unpacked")
  assert rows_of(load("ckplus", **dirs)) == expected


def test_a_fifo_among_the_labels_does_not_hang(dirs, raw):
  write_tree(raw)
  (label,) = list(raw.glob("Emotion/S005/001/*_emotion.txt"))
  label.unlink()
  os.mkfifo(label)
  with pytest.raises(UserError, match="_emotion.txt: not a regular file"):
    load("ckplus", **dirs)


def test_labels_and_landmarks_are_bounded(dirs, raw):
  write_tree(raw)
  (label,) = list(raw.glob("Emotion/S005/001/*_emotion.txt"))
  label.write_bytes(b" " * 100_000)
  with pytest.raises(UserError, match="_emotion.txt: more than 65,536 bytes"):
    load("ckplus", **dirs)
