"""The audit as a command: what it prints and writes, with FER+ and without."""

import csv
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from absl import flags
from PIL import Image
from tiny_releases import challenge_csv, make_faces

from fer_jax import audit as module
from fer_jax.data.datasets import class_names, registry
from fer_jax.data.inspect import audit as inspect_audit
from fer_jax.data.inspect import duplicates
from fer_jax.data.inspect.label_agreement import agreement
from fer_jax.errors import UserError

USAGES = ["Training"] * 7 + ["PublicTest"] * 4 + ["PrivateTest"] * 3
# FER2013's labels are 0, 1, ... 6, 0, 1, ...; row -> FER+'s column.
VOTED = {0: 4, 1: 5, 2: 7, 3: 1, 4: 8, 5: 2, 6: 0, 7: 4, 8: 9, 9: 6, 10: 3}


@pytest.fixture
def raw(tmp_path, monkeypatch):
  """A release whose row 7 (angry) is row 0, and 8 (disgust) row 2 (fear)."""
  # Keeps the user's own releases out of the tests.
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "home"))
  faces = make_faces(*USAGES)
  for copy, of in ((7, 0), (8, 2)):
    faces[copy] = faces[copy]._replace(image=faces[of].image)
  folder = tmp_path / "raw"
  folder.mkdir()
  (folder / "fer2013.csv").write_bytes(challenge_csv(faces))
  return folder


def _vote(raw):
  lines = [["Usage", "Image name", *class_names.FERPLUS_COLUMNS]]
  for row, usage in enumerate(USAGES):
    votes = [0] * 10
    votes[VOTED.get(row, 0)] = 10
    lines.append([usage, f"fer{row:07}.png", *map(str, votes)])
  text = "\n".join(",".join(line) for line in lines)
  (raw / "fer2013new.csv").write_text(text + "\n")


@pytest.fixture
def run(tmp_path, raw, monkeypatch):
  """Runs the command and returns its tables, by name."""

  def _run(*arguments):
    values = flags.FlagValues()
    module.define_flags(values)
    out = tmp_path / "out"
    values(
      [
        "audit",
        f"--manual_dir={raw}",
        f"--data_dir={tmp_path / 'prepared'}",
        f"--output={out}",
        *arguments,
      ]
    )
    monkeypatch.setattr(flags, "FLAGS", values)
    module.main(["audit"])
    return {
      path.name: list(csv.DictReader(path.read_text().splitlines()))
      for path in out.glob("*.csv")
    }

  return _run


def test_fer2013_without_votes(tmp_path, run, capsys):
  tables = run()
  assert tables.keys() == {"balance.csv", "duplicates.csv", "conflicts.csv"}
  assert len(tables["balance.csv"]) == 3 * 7
  assert tables["balance.csv"][7] == {
    "split": "validation",
    "class": "angry",
    "count": "1",
    "share": "0.250000",
  }
  copies = [tuple(row.values()) for row in tables["duplicates.csv"]]
  assert copies == [
    ("0", "train", "0", "angry"),
    ("0", "validation", "7", "angry"),
    ("1", "train", "2", "fear"),
    ("1", "validation", "8", "disgust"),
  ]
  conflicts = [tuple(row.values()) for row in tables["conflicts.csv"]]
  assert conflicts == copies[2:]
  with Image.open(tmp_path / "out" / "conflicts.png") as sheet:
    assert sheet.height > 96
  said = capsys.readouterr()
  assert (
    "2 of 4 (50.0 %) validation examples have their image in train" in said.out
  )
  assert "0 of 7 (0.0 %) train examples repeat an earlier one" in said.out
  assert "1 of 2 images with duplicates have conflicting labels" in said.out
  (line,) = [line for line in said.err.splitlines() if "compared" in line]
  assert "fer2013new.csv" in line and "--config.dataset.manual_dir" not in line


@pytest.mark.parametrize("name", ["fer2013", "ferplus"])
def test_labels_against_votes(run, raw, name, capsys):
  _vote(raw)
  table = run(f"--dataset={name}")["labels.csv"]
  counts = {
    (row["fer2013"], column): int(row[column])
    for row in table
    for column in class_names.FERPLUS_COLUMNS
    if row[column] != "0"
  }
  expected: dict[tuple[str, str], int] = {}
  for row in range(len(USAGES)):
    column = class_names.FERPLUS_COLUMNS[VOTED.get(row, 0)]
    pair = (class_names.FER2013_CLASSES[row % 7], column)
    expected[pair] = expected.get(pair, 0) + 1
  assert counts == expected
  # Rows 0, 1, 3, 5, 6, 7, 9 and 13 agree; 2, 4 and 8 have no class of FER2013.
  said = capsys.readouterr().out
  assert "8 of 14 (57.1 %) images have the same label in both" in said
  assert "8 of 11 (72.7 %)" in said


def test_other_data_sets_and_options(run, tmp_path, capsys):
  small = (
    "num_train=14",
    "num_validation=7",
    "num_test=7",
    "classes=sad,happy",
  )
  options = [f"--option={option}" for option in small]
  tables = run("--dataset=synthetic_faces", *options)
  assert [row["class"] for row in tables["balance.csv"]] == ["sad", "happy"] * 3
  assert not tables["conflicts.csv"]
  assert not (tmp_path / "out" / "conflicts.png").exists()
  said = capsys.readouterr()
  assert "FER+" not in said.out + said.err


def test_images_in_folders_are_named_by_their_files(tmp_path, run):
  root = tmp_path / "faces"
  names = ("happy/1.png", "happy/2.png", os.fsdecode(b"sad/caf\xe9.png"))
  for grey, name in zip((10, 20, 20), names, strict=True):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (48, 48), grey).save(root / name)
  tables = run("--dataset=folder", f"--manual_dir={root}")
  for table in ("duplicates.csv", "conflicts.csv"):
    assert [tuple(row.values()) for row in tables[table]] == [
      ("0", "train", "1", "happy/2.png", "happy"),
      ("0", "train", "2", r"sad/caf\xe9.png", "sad"),
    ]
  assert list(tables["conflicts.csv"][0])[3] == "file"


def test_no_name_is_a_formula(tmp_path, run):
  root = tmp_path / "faces"
  for i, name in enumerate(("=1+1/0.png", "sad/0.png", "sad/1.png")):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (48, 48), i // 2).save(root / name)
  tables = run("--dataset=folder", f"--manual_dir={root}")
  assert tables["balance.csv"][0]["class"] == "'=1+1"
  assert tables["conflicts.csv"][0]["file"] == "'=1+1/0.png"


def test_an_older_audit_leaves_nothing(run, raw, tmp_path):
  _vote(raw)
  run()
  small = ("num_train=14", "num_validation=7", "num_test=7")
  options = [f"--option={option}" for option in small]
  tables = run("--dataset=synthetic_faces", *options)
  assert "labels.csv" not in tables
  assert not (tmp_path / "out" / "conflicts.png").exists()


def test_a_place_that_cannot_be_written(run, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot write .*give another output"):
    run(f"--output={tmp_path / 'file'}")
  with pytest.raises(UserError, match="output=s3://bucket/a is not a path"):
    run("--output=s3://bucket/a")


def test_files_of_the_user_stay(run, tmp_path):
  small = ("num_train=14", "num_validation=7", "num_test=7")
  arguments = ["--dataset=synthetic_faces", *(f"--option={o}" for o in small)]
  for name in ("labels.csv", "conflicts.png", "balance.csv"):
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / name).write_text("mine")
  with pytest.raises(UserError, match="balance.csv exists and was not made"):
    run(*arguments)
  (tmp_path / "out" / "balance.csv").unlink()
  run(*arguments)
  for name in ("labels.csv", "conflicts.png"):
    assert (tmp_path / "out" / name).read_text() == "mine"


def _load(name, raw, tmp_path, **options):
  prepared = str(tmp_path / "prepared")
  return registry.load(name, manual_dir=str(raw), data_dir=prepared, **options)


def test_rows_of_other_images_are_not_compared(raw, tmp_path):
  _vote(raw)
  ferplus = _load("ferplus", raw, tmp_path, num_classes=10)
  faces = make_faces(*USAGES)
  (raw / "fer2013.csv").write_bytes(challenge_csv(faces))
  fer2013 = _load("fer2013", raw, tmp_path)
  with pytest.raises(UserError, match="differ between fer2013 and ferplus"):
    agreement(fer2013, ferplus)
  with pytest.raises(UserError, match="no row in common"):
    agreement(fer2013.replace(splits={}), ferplus)


def test_the_picture_says_how_many_it_leaves_out(raw, tmp_path, monkeypatch):
  dataset = _load("fer2013", raw, tmp_path)
  copies = (
    duplicates.Copy("train", 0, 0, 0),
    *(duplicates.Copy("train", i, i, 1) for i in range(9)),
  )
  found = duplicates.Audit(
    dataset.class_names, {"train": np.ones(7, int)}, [copies] * 43
  )
  drawn: dict[str, Any] = {}

  def _group_sheet(groups, title):
    drawn.update(groups=groups, title=title)

  monkeypatch.setattr(inspect_audit.image_sheets, "group_sheet", _group_sheet)
  inspect_audit.conflict_sheet(dataset, found)
  assert "40 of 43 (3 left out)" in drawn["title"]
  assert len(drawn["groups"]) == 40
  name, ((image, caption),) = drawn["groups"][0]
  assert name == "group 0" and image.shape == (48, 48, 1)
  assert caption.splitlines()[:2] == ["train 0: angry", "train 0: disgust"]
  assert caption.endswith("and 4 more")


def test_the_command(raw, tmp_path):
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      module.__name__,
      f"--manual_dir={raw}",
      f"--data_dir={tmp_path / 'prepared'}",
      f"--output={tmp_path / 'out'}",
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert "validation examples have their image in train" in done.stdout
  assert (tmp_path / "out" / "balance.csv").exists()
