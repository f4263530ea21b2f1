"""The command that draws contact sheets, and the flags of its data set."""

import subprocess
import sys

import pytest
from absl import flags
from PIL import Image

from fer_jax import contact_sheet as module
from fer_jax.cli import dataset_flags, messages
from fer_jax.errors import UserError

SMALL = ("num_train=21", "num_validation=7", "num_test=7")


@pytest.fixture
def run(tmp_path, monkeypatch):
  """Runs the command with small drawn faces, and more flags."""

  def _run(*arguments):
    values = flags.FlagValues()
    module.define_flags(values)
    values(
      [
        "contact_sheet",
        "--dataset=synthetic_faces",
        f"--data_dir={tmp_path / 'prepared'}",
        f"--output={tmp_path / 'out' / 'sheet.png'}",
        "--columns=3",
        *(f"--option={option}" for option in SMALL),
        *arguments,
      ]
    )
    monkeypatch.setattr(flags, "FLAGS", values)
    module.main(["contact_sheet"])

  return _run


def test_main_writes_the_file(tmp_path, run, capsys):
  run()
  path = tmp_path / "out" / "sheet.png"
  assert str(path) in capsys.readouterr().out
  with Image.open(path) as sheet:
    assert sheet.height == 16 + 40 + 7 * 100 - 4 + 16


def test_options_reach_the_data_set(tmp_path, run):
  run("--option=classes=happy,sad", "--option=holdout_test=0.3", "--split=test")
  with Image.open(tmp_path / "out" / "sheet.png") as sheet:
    assert sheet.height == 16 + 40 + 2 * 100 - 4 + 16


def test_unknown_split_lists_those_there(run):
  with pytest.raises(UserError, match="'tset'.*train, validation, test"):
    run("--split=tset")


@pytest.mark.parametrize("name", ["sheet.txt", "sheet.psd", "s3://b/s.png"])
def test_unknown_format_is_told_before_any_work(tmp_path, run, name):
  output = name if "://" in name else tmp_path / name
  with pytest.raises(UserError, match=name):
    run(f"--output={output}")
  assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written(tmp_path, run):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot write "):
    run(f"--output={tmp_path / 'file' / 'sheet.png'}")


def test_options_are_read_as_their_defaults_are():
  texts = (
    "classes=1,2",
    "holdout_test=1",
    "holdout_seed=3",
    "drop_duplicates=1",
    "num_train=40",
  )
  options = dataset_flags.parse_options("synthetic_faces", texts)
  assert options == {
    "classes": "1,2",
    "holdout_test": 1,
    "holdout_seed": 3,
    "drop_duplicates": True,
    "num_train": 40,
  }
  assert options["drop_duplicates"] is True
  assert isinstance(options["holdout_test"], float)


@pytest.mark.parametrize(
  ("texts", "message"),
  [
    (["num_train"], "option=num_train must be NAME=VALUE.*classes.*seed"),
    (["num_trian=3"], "'num_trian'.*classes.*num_train"),
    (
      ["manual_dir=x"],
      "unknown option of dataset synthetic_faces 'manual_dir'",
    ),
    (["seed=1", "seed=2"], "option=seed=... is given twice"),
    (["num_train=many"], "option=num_train='many' must be an integer"),
    (["num_train=3.5"], "option=num_train='3.5' must be an integer"),
    (["drop_duplicates=2"], "option=drop_duplicates='2' must be true or false"),
    (["holdout_test=half"], "option=holdout_test='half' must be a number"),
  ],
)
def test_wrong_options(texts, message):
  with pytest.raises(UserError, match=message):
    dataset_flags.parse_options("synthetic_faces", texts)


def test_a_fraction_that_is_not_finite_is_refused(run):
  with pytest.raises(UserError, match="dataset.holdout_test=nan must be a fra"):
    run("--option=holdout_test=nan")


def test_errors_name_the_flags_there_are(tmp_path, run):
  with pytest.raises(
    UserError, match="^dataset.holdout_test=2.0 must"
  ) as error:
    run("--option=holdout_test=2")
  shown = messages.with_flags(str(error.value), flags.FLAGS)
  assert shown.startswith("--option=holdout_test=2.0 must")
  values = flags.FlagValues()
  dataset_flags.define(values)
  values(["x", "--manual_dir=/none/here", f"--data_dir={tmp_path}"])
  with pytest.raises(
    UserError, match="^dataset.manual_dir=/none/here does not exist"
  ) as error:
    dataset_flags.load(values)
  shown = messages.with_flags(str(error.value), values)
  assert shown.startswith("--manual_dir=/none/here does not exist")


def test_unknown_dataset_is_one_line():
  done = subprocess.run(
    [sys.executable, "-m", module.__name__, "--dataset=synthetic_fases"],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 1 and done.stdout == ""
  (line,) = done.stderr.splitlines()
  assert "synthetic_fases" in line and "synthetic_faces" in line
