"""The command `fer-jax`: its commands, their help, and errors as flags."""

import importlib
import os
import subprocess
import sys

import pytest
from absl import flags

from fer_jax.cli import (
  app,
  config_overrides,
  list_names,
  main,
  messages,
  recipe_flags,
)
from fer_jax.pretrained import released
from fer_jax.recipes import get_config

MODULES = {
  name: module
  for group in main.COMMANDS.values()
  for name, (module, _) in group.items()
}


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
  return subprocess.run(
    [sys.executable, "-m", "fer_jax", *arguments],
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_without_a_command_it_lists_them(arguments):
  done = run(*arguments)
  assert (done.returncode, done.stderr) == (0, "")
  assert all(f"\n  {name} " in done.stdout for name in MODULES)
  assert len(done.stdout.splitlines()) <= 24


@pytest.mark.parametrize("name", MODULES)
def test_help_fits_a_screen(name):
  done = run(name, "--help")
  assert (done.returncode, done.stderr) == (0, "")
  lines = done.stdout.splitlines()
  assert len(lines) <= 28 and max(map(len, lines)) <= 80
  assert not any(line.endswith("...") for line in lines), "cut off"
  assert f"fer-jax {name}" in done.stdout


def test_helpfull_describes_the_fields():
  done = run("train", "--helpfull")
  assert done.returncode == 0
  assert "  config.batch_size = 32  # over all devices\n" in done.stdout
  assert "config.input.channels = None  # 1, or 3" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
@pytest.mark.parametrize("arguments", ["--help", "predict --help", "list"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_stdout_is_one_line(arguments, unbuffered):
  with open("/dev/full", "w") as full:
    done = subprocess.run(
      [sys.executable, "-m", "fer_jax", *arguments.split()],
      stdout=full,
      stderr=subprocess.PIPE,
      text=True,
      env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )
  assert done.returncode == 1
  (line,) = done.stderr.splitlines()
  assert line.startswith("error: cannot print to stdout: No space left")


def test_help_offers_a_url_only_where_one_is_accepted():
  assert "Folder or URL" in run("train", "--help").stdout
  assert "Folder or URL" not in run("cross-validate", "--help").stdout


def test_a_recipe_is_trained_on_another_dataset(tmp_path):
  fields = {"name": "folder", "manual_dir": tmp_path, "data_dir": tmp_path}
  flags = [f"--config.dataset.{k}={v}" for k, v in fields.items()]
  done = run("train", "--config=ferplus_mobilenet_v2", *flags)
  assert done.stdout.startswith("dataset.name=folder: without what the recipe")
  assert "two or more class folders are needed" in done.stderr
  assert len(done.stderr.splitlines()) == 1


def test_list_names_the_released_models(capsys):
  list_names.main(["list", "released"])
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[0] for line in lines] == released.list_released()
  assert [line.split()[0] for line in lines if "the default" in line] == [
    released.default_name()
  ]


def test_a_mistyped_command_suggests_the_nearest():
  done = run("trian", "--config=resnet50")
  assert done.returncode == 1
  assert done.stderr.startswith("error: unknown command 'trian' (did you mean")
  assert "train" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
  "module",
  [
    "fer_jax.data.audit",
    "fer_jax.data.contact_sheet",
    "fer_jax.data.align",
    "fer_jax.pretrained.convert",
  ],
)
def test_former_modules_still_run(module):
  done = subprocess.run(
    [sys.executable, "-m", module, "--help"], capture_output=True, text=True
  )
  assert done.returncode == 0 and "fer-jax" in done.stdout


@pytest.mark.parametrize("name", MODULES)
def test_every_command_is_a_module(name):
  command = importlib.import_module(MODULES[name]).COMMAND
  assert command.name == name and command.doc


@pytest.mark.parametrize(
  ("given", "taken"),
  [
    (["--config.a=1", "x"], ["a=1"]),
    (["--config.a", "1"], ["a=1"]),
    (["--config.a", "-1"], ["a=-1"]),
    (["--config.a.b", "--workdir=w"], ["a.b=true"]),
    (["--noconfig.a"], ["a=false"]),
    (["-config.a=x=y"], ["a=x=y"]),
  ],
)
def test_fields_are_taken_from_the_command_line(given, taken):
  arguments = config_overrides.take_overrides(given)
  prefix = f"--{config_overrides.FLAG}="
  fields = [a.removeprefix(prefix) for a in arguments if a.startswith(prefix)]
  assert fields == taken


@pytest.mark.parametrize(
  ("message", "shown"),
  [
    ("batch_size=3 must be 4", "--config.batch_size=3 must be 4"),
    ("leave dataset.manual_dir out", "leave --config.dataset.manual_dir out"),
    ("model.stem=None removes it", "--config.model.stem=None removes it"),
    ("workdir=x has no run", "--workdir=x has no run"),
    ("unknown loss.name 'x'", "unknown --config.loss.name 'x'"),
    ("unknown model 'x'", "unknown model 'x'"),
    ("cannot read runs/seed=3/x.png", "cannot read runs/seed=3/x.png"),
    ("use --config.seed=1", "use --config.seed=1"),
    (
      "(dtype: 'a' -> 'b'; model.name: 1 -> 2; model.stem: 3 -> 4; x: 5 -> 6)",
      "(--config.dtype: 'a' -> 'b'; --config.model.name: 1 -> 2;"
      " --config.model.stem: 3 -> 4; x: 5 -> 6)",
    ),
    ("see train.py, or fer_jax.data.audit", ""),
    ("seed==1", ""),
  ],
)
def test_messages_name_flags(message, shown):
  values = flags.FlagValues()
  config_overrides.define(values)
  flags.DEFINE_string("workdir", "", "", flag_values=values)
  assert messages.with_flags(message, values) == (shown or message)


def test_the_dataset_flag_is_named_where_there_is_one():
  values = flags.FlagValues()
  flags.DEFINE_string("dataset", "", "", flag_values=values)
  said = messages.with_flags("use dataset.name=folder", values)
  assert said == "use --dataset=folder"


@pytest.fixture
def values(monkeypatch):
  """The flags of a command, of which one is true if it is not set."""
  values = flags.FlagValues()
  flags.DEFINE_bool("detect", True, "", flag_values=values)
  monkeypatch.setattr(flags, "FLAGS", values)
  return values


def test_arguments_after_two_dashes_are_not_flags(values):
  given = ["predict", "--no-detect", "--", "--my-photo", "--help"]
  assert app._parse_flags(given, "") == ["predict", "--my-photo", "--help"]
  assert values.detect is False


@pytest.mark.parametrize("flag", ["--no-detect=true", "--nodetect=1"])
def test_a_negated_flag_takes_no_value(values, flag, capsys):
  with pytest.raises(SystemExit):
    app._parse_flags(["predict", flag], "")
  out, err = capsys.readouterr()
  assert not out and err.startswith("error: --nodetect=") and "--help" in err


def test_a_negated_field_takes_no_value(values, capsys):
  config_overrides.define(values)
  with pytest.raises(SystemExit):
    app._parse_flags(["train", "--noconfig.augment.flip=true"], "")
  out, err = capsys.readouterr()
  assert not out and len(err.splitlines()) == 1
  assert err.startswith("error: --noconfig.augment.flip=true must have no")


def test_an_overfit_check_has_a_folder_of_its_own():
  config = get_config("resnet18")
  place = recipe_flags.default_workdir("jiang_ri:ckplus", config)
  assert place == "runs/jiang_ri-ckplus-fer2013"
  config = get_config("resnet18", overfit=64)
  assert recipe_flags.default_workdir("resnet18", config) == (
    "runs/resnet18-fer2013-overfit64"
  )
