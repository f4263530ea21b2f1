"""FER+: votes joined to faces, in every release that keeps the order."""

import gzip
import logging

import numpy as np
import pytest
from tiny_releases import FORMS, make_faces, write_files, zipped

from fer_jax.data import load
from fer_jax.errors import UserError

HEADER = (
  "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,"
  "contempt,unknown,NF"
)
# Target of 8 classes, by majority: 0, 1, dropped (none), 4, dropped (no face).
VOTES = (
  (8, 0, 0, 2, 0, 0, 0, 0, 0, 0),
  (0, 9, 1, 0, 0, 0, 0, 0, 0, 0),
  (5, 0, 0, 5, 0, 0, 0, 0, 0, 0),
  (2, 0, 0, 0, 6, 0, 1, 0, 0, 0),
  (0, 0, 0, 0, 0, 0, 0, 0, 0, 10),
)
USAGES = ["Training"] * 5 + ["PublicTest"] * 5 + ["PrivateTest"] * 5
ORDERED = sorted(set(FORMS) - {"folders", "folders zip"})


def votes_csv(usages=USAGES, rows=None, header=HEADER):
  rows = rows or [VOTES[i % 5] for i in range(len(usages))]
  lines = [header]
  for i, (usage, row) in enumerate(zip(usages, rows, strict=True)):
    name = "" if row[-1] == 10 else f"fer00{i:05}.png"
    lines.append(",".join([usage, name, *map(str, row)]))
  return "\r\n".join([*lines, ""]).encode()


@pytest.fixture(autouse=True)
def no_home(tmp_path, monkeypatch):
  """Keeps the user's own releases out of the tests."""
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "home"))


@pytest.fixture
def raw(tmp_path):
  return tmp_path / "raw"


@pytest.fixture
def faces():
  return make_faces(*USAGES)


@pytest.fixture
def open_data(tmp_path, raw):
  """Loads FER+ from `raw`."""
  return lambda **options: load(
    "ferplus",
    **{
      "data_dir": str(raw),
      "prepared_dir": str(tmp_path / "prepared"),
      **options,
    },
  )


@pytest.mark.parametrize("form", ORDERED)
def test_every_ordered_release_joins(form, raw, faces, open_data):
  write_files(raw, FORMS[form](faces) | {"fer2013new.csv": votes_csv()})
  dataset = open_data()
  assert dataset.class_names[:2] == ("neutral", "happiness")
  assert dataset.num_classes == 8
  for i, name in enumerate(("train", "validation", "test")):
    arrays = dataset.split(name).arrays()
    assert arrays["target"].tolist() == [0, 1, 4]
    rows = [5 * i, 5 * i + 1, 5 * i + 3]
    assert arrays["row"].tolist() == rows
    for image, row in zip(arrays["image"], rows, strict=True):
      np.testing.assert_array_equal(image[..., 0], faces[row].image)


@pytest.mark.parametrize("form", ["folders", "folders zip"])
def test_releases_out_of_order_are_refused(form, raw, faces, open_data):
  write_files(raw, FORMS[form](faces) | {"fer2013new.csv": votes_csv()})
  with pytest.raises(UserError, match="by their order, which the release as f"):
    open_data()


def test_an_ordered_release_is_taken_before_folders(raw, faces, open_data):
  write_files(raw, FORMS["folders"](faces) | FORMS["icml"](faces))
  write_files(raw, {"fer2013new.csv": votes_csv()})
  assert len(open_data().split("train")) == 3


@pytest.mark.parametrize(
  "files",
  [
    {"fer2013new.csv.gz": gzip.compress(votes_csv())},
    {"FERPlus-master/fer2013new.csv": votes_csv()},
    {
      "FERPlus-master.zip": zipped(
        {
          "__MACOSX/fer2013new.csv": b"?",
          "FERPlus-master/fer2013new.csv": votes_csv(),
        }
      )
    },
  ],
  ids=["gz", "folder", "zip"],
)
def test_votes_are_found_as_they_were_got(files, raw, faces, open_data):
  write_files(raw, FORMS["csv"](faces) | files)
  assert len(open_data().split("train")) == 3
  assert len(open_data(data_dir=str(raw / "fer2013.csv")).split("test")) == 3


def test_ten_classes_keep_every_row(raw, faces, open_data):
  write_files(raw, FORMS["csv"](faces) | {"fer2013new.csv": votes_csv()})
  dataset = open_data(num_classes=10)
  assert dataset.class_names[8:] == ("unknown", "NF")
  assert dataset.split("train").targets().tolist() == [0, 1, 8, 4, 9]


def test_distributions(raw, faces, open_data):
  write_files(raw, FORMS["csv"](faces) | {"fer2013new.csv": votes_csv()})
  targets = open_data(target="distribution").split("train").targets()
  expected = np.zeros((4, 8))
  expected[0, 0] = expected[1, 1] = 1
  expected[2, [0, 3]] = 0.5
  expected[3, 4] = 1  # 6 of 8
  np.testing.assert_allclose(targets, expected)
  targets = open_data(target="multi_target", num_classes=10)
  assert targets.split("test").targets().shape == (5, 10)


def test_options_and_files_are_prepared_apart(raw, faces, open_data, capsys):
  files = FORMS["csv"](faces) | {"fer2013new.csv": votes_csv()}
  write_files(raw, files)
  for _ in range(2):
    open_data()
    open_data(target="distribution")
  assert capsys.readouterr().err.count("prepared ferplus") == 2
  changed = [VOTES[0]] * 15
  write_files(raw, {"fer2013new.csv": votes_csv(rows=changed)})
  assert open_data().split("train").targets().tolist() == [0] * 5
  assert "instead of data from another release" in capsys.readouterr().err
  assert len(open_data(data_dir="").split("train")) == 5  # as prepared


def test_counts_other_than_the_known_are_warned_of(
  raw, faces, open_data, caplog
):
  write_files(raw, FORMS["csv"](faces) | {"fer2013new.csv": votes_csv()})
  with caplog.at_level(logging.WARNING):
    open_data()
  assert "train has 3 rows (known: 25,060)" in caplog.text
  assert "test has 3 rows (known: 3,153)" in caplog.text


def test_missing_files_say_what_to_get(raw, faces, open_data):
  write_files(raw, FORMS["csv"](faces))
  for data_dir in (str(raw), ""):
    with pytest.raises(UserError) as error:
      open_data(data_dir=data_dir)
    text = str(error.value)
    if data_dir:
      assert "no votes of FER+" in text
      assert "https://github.com/microsoft/FERPlus" in text
    assert "synthetic_faces" in text
  (raw / "fer2013.csv").unlink()
  write_files(raw, {"fer2013new.csv": votes_csv()})
  with pytest.raises(UserError, match="no release of FER2013"):
    open_data()


WRONG = {
  "other usage": (
    votes_csv(["Training"] * 4 + ["PublicTest"] * 6 + USAGES[10:]),
    "fer2013new.csv, row 4: votes on an image of validation, which in .*"
    "fer2013.csv is one of train",
  ),
  "too few": (votes_csv(USAGES[:9]), "has more rows than the 9 of .*new.csv"),
  "too many": (
    votes_csv([*USAGES, "PrivateTest"]),
    "new.csv has more rows than the 15 of .*fer2013.csv",
  ),
  "usage": (
    votes_csv(["Trainig", *USAGES[1:]]),
    "fer2013new.csv, line 2: Usage 'Trainig' must be one of Training",
  ),
  "vote": (
    votes_csv(rows=[("x", *[0] * 9)] * 15),
    "line 2: neutral 'x' must be 0 to 10 votes",
  ),
  "many votes": (
    votes_csv(rows=[(11, *[0] * 9)] * 15),
    "line 2: neutral '11' must be 0 to 10",
  ),
  "more than ten": (
    votes_csv(rows=[(9, 9, *[0] * 8)] * 15),
    "line 2: 18 votes in all, where 10 people voted",
  ),
  "column": (
    votes_csv(header=HEADER.replace("fear", "angst")),
    "line 1: no column fear in the header",
  ),
  "cut off": (votes_csv()[:-9], "line 16: 9 fields instead of 12"),
  "bytes": (b"\xff\xfe\x00", "broken or cut off"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_wrong_votes_are_named(case, raw, faces, open_data):
  content, message = WRONG[case]
  write_files(raw, FORMS["csv"](faces) | {"fer2013new.csv": content})
  with pytest.raises(UserError, match=message):
    open_data()


@pytest.mark.parametrize(
  ("option", "value", "message"),
  [
    ("target", "vote", "target 'vote': choose one of distribution, majority"),
    ("num_classes", 7, "dataset.num_classes=7 must be 8"),
  ],
)
def test_wrong_options_are_named(option, value, message, open_data):
  with pytest.raises(UserError, match=message):
    open_data(**{option: value})
