"""FER+: votes joined to faces, in every release that keeps the order."""

import gzip
import logging

import numpy as np
import pytest
from tiny_releases import FORMS, make_faces, write_files, zipped

from fer_jax.data import load
from fer_jax.data.datasets import class_names
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
  (2, 0, 0, 0, 7, 0, 1, 0, 0, 0),
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
      "manual_dir": str(raw),
      "data_dir": str(tmp_path / "prepared"),
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
  with pytest.raises(
    UserError, match="by position, which folders of images do"
  ):
    open_data()


def test_an_ordered_release_is_taken_before_folders(raw, faces, open_data):
  write_files(raw, FORMS["folders"](faces) | FORMS["icml"](faces))
  write_files(raw, {"fer2013new.csv": votes_csv()})
  assert len(open_data().split("train")) == 3


def test_folders_beside_the_release_that_is_joined_do_not_matter(
  raw, faces, open_data, capsys
):
  """What is prepared from is what is watched for changes."""
  write_files(raw, FORMS["folders"](faces) | {"fer2013new.csv": votes_csv()})
  write_files(raw / "fer2013", FORMS["csv"](faces))
  open_data()
  (raw / "train/.DS_Store").unlink()
  (raw / "train/new").mkdir()
  (raw / "train/new/Training_99.jpg").write_bytes(b"?")
  assert len(open_data().split("train")) == 3
  assert capsys.readouterr().err.count("prepared ferplus") == 1
  changed = make_faces(*USAGES)[::-1]
  usages = [face.usage for face in faces]
  changed = [f._replace(usage=u) for f, u in zip(changed, usages, strict=True)]
  write_files(raw / "fer2013", FORMS["csv"](changed))
  image = open_data().split("train").arrays()["image"][0, ..., 0]
  np.testing.assert_array_equal(image, faces[-1].image)


@pytest.mark.parametrize(
  "files",
  [
    {"fer2013new.csv.gz": gzip.compress(votes_csv())},
    {"FERPlus/fer2013new.csv": votes_csv()},
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
  ids=["gz", "FERPlus", "FERPlus-master", "zip"],
)
def test_votes_are_found_as_they_were_got(files, raw, faces, open_data):
  write_files(raw, FORMS["csv"](faces) | files)
  assert len(open_data().split("train")) == 3
  assert len(open_data(manual_dir=str(raw / "fer2013.csv")).split("test")) == 3


def test_both_may_lie_in_the_manual_folder_or_beside(
  tmp_path, raw, faces, open_data
):
  manual = tmp_path / "home/downloads/manual"
  write_files(manual, FORMS["unpacked tar"](faces))
  write_files(manual, {"fer2013/fer2013new.csv": votes_csv()})
  assert len(open_data(manual_dir="").split("train")) == 3
  write_files(raw, FORMS["gz"](faces) | {"fer2013new.csv": votes_csv()})
  given = str(raw / "fer2013new.csv")
  assert len(open_data(manual_dir=given).split("train")) == 3


def test_columns_go_by_their_names(raw, faces, open_data):
  header = HEADER.split(",")
  rows = [line.split(",") for line in votes_csv().decode().splitlines()[1:]]
  order = [11, 3, 0, *range(4, 11), 2, 1]
  lines = [",".join(row[i] for i in order) for row in [header, *rows]]
  content = "\ufeff" + "\n".join([*lines, "", ""])
  write_files(raw, FORMS["csv"](faces))
  write_files(raw, {"fer2013new.csv": content.encode()})
  assert open_data().split("train").targets().tolist() == [0, 1, 4]


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
  expected[3, 4] = 1  # 7 of 9
  assert targets.dtype == np.float32
  np.testing.assert_allclose(targets, expected)
  ten = open_data(target="distribution", num_classes=10)
  np.testing.assert_allclose(
    ten.split("train").targets(),
    np.concatenate([np.pad(expected, ((0, 0), (0, 2))), np.eye(10)[[9]]]),
  )


def test_multi_targets(raw, faces, open_data):
  rows = [(3, 0, 0, 5, 2, 0, 0, 0, 0, 0), *[VOTES[0]] * 13, VOTES[4]]
  write_files(raw, FORMS["csv"](faces))
  write_files(raw, {"fer2013new.csv": votes_csv(rows=rows)})
  dataset = open_data(target="multi_target")
  targets = dataset.split("train").targets()
  assert targets.shape == (5, 8) and len(dataset.split("test")) == 4
  np.testing.assert_allclose(
    targets[0], np.eye(8)[0] * 3 / 8 + np.eye(8)[3] * 5 / 8
  )
  np.testing.assert_allclose(targets[1], np.eye(8)[0])
  ten = open_data(target="multi_target", num_classes=10).split("test").targets()
  np.testing.assert_allclose(ten[-1], np.eye(10)[9])


def test_options_and_files_are_prepared_apart(raw, faces, open_data, capsys):
  files = FORMS["csv"](faces) | {"fer2013new.csv": votes_csv()}
  write_files(raw, files)
  for _ in range(2):
    assert len(open_data().split("train")) == 3
    assert len(open_data(target="distribution").split("train")) == 4
    assert len(open_data(num_classes=10).split("train")) == 5
  assert capsys.readouterr().err.count("prepared ferplus") == 3
  changed = [VOTES[0]] * 15
  write_files(raw, {"fer2013new.csv": votes_csv(rows=changed)})
  assert open_data().split("train").targets().tolist() == [0] * 5
  assert "replacing a copy of other files" in capsys.readouterr().err
  assert len(open_data(manual_dir="").split("train")) == 5  # as prepared


def prepare_and_warn(caplog, open_data, **options):
  caplog.clear()
  with caplog.at_level(logging.WARNING, logger="absl"):
    open_data(**options)
  return [record.getMessage() for record in caplog.records]


def test_counts_other_than_the_official_are_warned_of(
  raw, faces, open_data, caplog, monkeypatch
):
  write_files(raw, FORMS["csv"](faces[:10]))
  write_files(raw, {"fer2013new.csv": votes_csv(USAGES[:10])})
  (warning,) = prepare_and_warn(caplog, open_data)
  assert "train keeps 3 examples (official: 25060)" in warning
  assert "test has no examples (official: 3153)" in warning
  (warning,) = prepare_and_warn(caplog, open_data, target="multi_target")
  assert warning.endswith(
    "differs from the official FER+: test has no examples"
  )
  counts = {("distribution", 8): (4, 4, 4)}
  monkeypatch.setattr(class_names, "FERPLUS_COUNTS", counts)
  (warning,) = prepare_and_warn(caplog, open_data, target="distribution")
  assert warning.endswith("official FER+: test has no examples (official: 4)")


def test_missing_votes_are_counted(raw, faces, open_data, caplog, monkeypatch):
  monkeypatch.setattr(class_names, "FERPLUS_COUNTS", {})
  monkeypatch.setattr(class_names, "FERPLUS_SHORT_ROW", 6)
  rows: list[tuple[int, ...]] = [VOTES[0]] * 15
  rows[6] = (9, *[0] * 9)
  write_files(raw, FORMS["csv"](faces))
  write_files(raw, {"fer2013new.csv": votes_csv(rows=rows)})
  assert prepare_and_warn(caplog, open_data) == []
  rows[3] = rows[8] = (0, 7, *[0] * 8)
  write_files(raw, {"fer2013new.csv": votes_csv(rows=rows)})
  (warning,) = prepare_and_warn(caplog, open_data)
  assert "2 more rows than the official one have fewer than 10 vot" in warning
  assert "first row 3 (from 0)" in warning


@pytest.mark.parametrize("given", [True, False])
def test_missing_files_say_what_to_get(given, tmp_path, raw, faces, open_data):
  place = raw if given else tmp_path / "home/downloads/manual"
  place.mkdir(parents=True)
  manual_dir = str(raw) if given else ""
  csv = "no FER2013 in the order of fer2013.csv (get fer2013.csv, "
  new = "no votes of FER+ (get fer2013new.csv, "

  def message():
    with pytest.raises(UserError) as error:
      open_data(manual_dir=manual_dir)
    text = str(error.value)
    assert "\n" not in text and f"{place}: put both" in text
    assert ("prepared before" in text) == given
    return text

  assert csv in message() and new in message()
  write_files(place, FORMS["folders"](faces))
  assert csv in message() and new in message()
  write_files(place, FORMS["csv"](faces))
  assert csv not in message() and new in message()
  assert "https://github.com/microsoft/FERPlus" in message()
  (place / "fer2013.csv").rename(place / "fer2013new.csv")
  (place / "train").rename(place / "trains")
  assert csv in message() and new not in message()


def test_wrong_manual_dir_is_refused_though_data_are_prepared(
  tmp_path, raw, faces, open_data
):
  write_files(raw, FORMS["csv"](faces) | {"fer2013new.csv": votes_csv()})
  open_data()
  assert len(open_data(manual_dir="").split("train")) == 3
  with pytest.raises(UserError, match="manual_dir=.*elsewhere does not exist"):
    open_data(manual_dir=str(tmp_path / "elsewhere"))
  with pytest.raises(UserError, match="cannot look for FER.*too long"):
    open_data(manual_dir="x" * 300)


WRONG = {
  "other usage": (
    votes_csv(["Training"] * 4 + ["PublicTest"] * 6 + USAGES[10:]),
    r"fer2013new.csv, line 6: Usage says validation, but row 4 \(from 0\) of "
    ".*/fer2013.csv is of train",
  ),
  "too few": (
    votes_csv(USAGES[:9]),
    "fer2013new.csv has 9 rows and .*/fer2013.csv 15: they are joined by",
  ),
  "too many": (
    votes_csv([*USAGES, "PrivateTest"]),
    "fer2013new.csv has 16 rows and .*/fer2013.csv 15: they are joined by",
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
  "no votes": (
    votes_csv(rows=[[0] * 10] * 15),
    "line 2: 0 votes in all, where 10 people voted",
  ),
  "fraction": (
    votes_csv(rows=[VOTES[0]] * 14 + [(2, 1.5, *[0] * 8)]),
    "line 16: happiness '1.5' must be 0 to 10 votes",
  ),
  "empty": (b"", "fer2013new.csv, line 1: no column Usage and no neutral"),
  "endless": (
    HEADER.encode() + b'\n"' + b"x" * 200_000,
    "line 2: a line of more than 65,536 bytes",
  ),
  "column": (
    votes_csv(header=HEADER.replace("fear", "angst")),
    "line 1: no column fear in the header",
  ),
  "cut off": (votes_csv()[:-9], "line 16: 9 fields instead of 12"),
  "bytes": (b"\xff\xfe\x00", "line 1: no column Usage and no neutral"),
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
    ("target", "vote", "dataset.target 'vote': choose one of distribution, ma"),
    ("num_classes", 7, "dataset.num_classes=7 must be 8"),
  ],
)
def test_wrong_options_are_named(option, value, message, open_data):
  with pytest.raises(UserError, match=message):
    open_data(**{option: value})


def test_votes_in_another_order_are_refused_in_one_line(raw, open_data):
  faces = make_faces(*["Training"] * 140)
  places = {0: 4, 1: 5, 2: 6, 3: 1, 4: 3, 5: 2, 6: 0}  # FER2013's -> FER+'s
  votes = []
  for face in faces:
    row = [0] * 10
    row[places[face.label]] = 9
    votes.append(row)
  usages = [face.usage for face in faces]
  files = FORMS["csv"](faces)
  write_files(raw, files | {"fer2013new.csv": votes_csv(usages, votes)})
  assert len(open_data().split("train")) == 140
  swapped = [*sorted(votes)]
  write_files(raw, files | {"fer2013new.csv": votes_csv(usages, swapped)})
  with pytest.raises(UserError, match="not in the order of .*chance: 1") as e:
    open_data()
  assert "\n" not in str(e.value)
