"""What a command says of bad input and of an interruption."""

import csv
import os
import signal
import subprocess
import sys

import pytest

from fer_jax.errors import UserError, choose, require


def run(body: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
  """Runs a command whose main has this body."""
  code = (
    "from fer_jax import errors\nfrom fer_jax.cli import app\n"
    f"def main(argv):\n  {body}\napp.run(main)\n"
  )
  return subprocess.run(
    [sys.executable, "-c", code, *arguments], capture_output=True, text=True
  )


def test_a_user_error_is_one_line_and_status_1():
  done = run("raise errors.UserError('no rows: give more')")
  assert (done.returncode, done.stderr) == (1, "error: no rows: give more\n")


@pytest.mark.parametrize("error", ["RuntimeError", "ZeroDivisionError"])
def test_other_errors_keep_their_traceback(error):
  done = run(f"raise {error}('a bug')")
  assert done.returncode == 1
  assert "Traceback" in done.stderr


@pytest.mark.parametrize(
  ("error", "reason"),
  [
    ("RuntimeError('RESOURCE_EXHAUSTED: Out of memory\\nsizes')", "Out of "),
    ("RuntimeError('UNKNOWN: call failed: std::bad_alloc')", "std::bad_alloc"),
    ("MemoryError", "MemoryError"),
  ],
)
def test_out_of_memory_is_one_line(error, reason):
  done = run(f"raise {error}")
  assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
  assert done.stderr.startswith("error: out of memory (")
  assert reason in done.stderr and "batch_size" in done.stderr


def test_an_interruption_is_status_130():
  done = run("raise KeyboardInterrupt")
  assert (done.returncode, done.stderr) == (130, "interrupted\n")


def predicting(body: str, folder: os.PathLike[str]) -> "subprocess.Popen[str]":
  """Starts a command that writes a result to faces.csv; then this happens."""
  code = f"""
import signal, time
from pathlib import Path
from fer_jax.cli import app
from fer_jax.inference.prediction import ImageResult
from fer_jax.inference.result_writers import result_writer
def main(argv):
  with result_writer(["a"], csv=Path("faces.csv")) as write:
    write(ImageResult("a.png", []))
    {body}
app.run(main)
"""
  process = subprocess.Popen(
    [sys.executable, "-c", code],
    cwd=folder,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout and "expression" in process.stdout.readline()
  assert "a.png" in process.stdout.readline()
  return process


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.usefixtures("hangups_end_processes")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_keeps_what_was_predicted(name, tmp_path):
  number = getattr(signal, name)
  with predicting("while True: time.sleep(0.01)", tmp_path) as process:
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
  assert (process.returncode, err) == (128 + number, f"interrupted by {name}\n")
  (row,) = csv.DictReader((tmp_path / "faces.csv").read_text().splitlines())
  assert row["source"] == "a.png"
  assert {path.name for path in tmp_path.iterdir()} == {
    ".fer_jax_files.jsonl",
    "faces.csv",
  }


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.usefixtures("hangups_end_processes")
def test_signals_while_outputs_are_saved_do_not_stop_that(tmp_path):
  again = """
    try:
      while True: time.sleep(0.01)
    finally:
      signal.raise_signal(signal.SIGTERM)
      signal.raise_signal(signal.SIGHUP)
"""
  with predicting(again.strip(), tmp_path) as process:
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
  assert process.returncode == 128 + signal.SIGHUP
  assert (tmp_path / "faces.csv").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
def test_a_command_that_ignores_hangups_goes_on():
  before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
  try:
    done = run("import signal; signal.raise_signal(signal.SIGHUP)")
  finally:
    signal.signal(signal.SIGHUP, before)
  assert (done.returncode, done.stderr) == (0, "")


def test_a_name_that_stdout_cannot_encode_is_escaped(monkeypatch):
  monkeypatch.setenv("PYTHONIOENCODING", "ascii")
  done = run(r"print('\u4e2d.png')")
  assert (done.returncode, done.stdout) == (0, "\\u4e2d.png\n")


def test_success_is_status_0():
  assert run("print('fine')").returncode == 0


@pytest.mark.parametrize(
  ("argument", "detect", "size"),
  [
    ("--no-detect", False, 1),
    ("--no_detect", False, 1),
    ("--nodetect", False, 1),
    ("--detect", True, 1),
    ("--batch-size=3", True, 3),
    ("--batch_size=3", True, 3),
  ],
)
def test_flags_may_be_spelled_with_dashes(argument, detect, size):
  code = f"""
from absl import flags
from fer_jax.cli import app
flags.DEFINE_bool("detect", True, "")
flags.DEFINE_integer("batch_size", 1, "")
def main(argv):
  assert (flags.FLAGS.detect, flags.FLAGS.batch_size) == ({detect}, {size})
  assert argv[1:] == ["an-image.png"]
app.run(main, takes_arguments=True)
"""
  done = subprocess.run(
    [sys.executable, "-c", code, argument, "an-image.png"], capture_output=True
  )
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("argument", ["--no_such_flag=1", "stray"])
def test_a_wrong_argument_is_one_line(argument):
  done = run("print('fine')", argument)
  assert done.returncode == 1
  (line,) = done.stderr.strip().splitlines()
  assert (
    line.startswith("error: ") and argument.strip("-").split("=")[0] in line
  )


def test_choose_lists_the_choices_sorted():
  with pytest.raises(UserError, match="unknown stem 'x': choose one of a, b"):
    choose("stem", "x", ("b", "a"))


def test_require_names_the_field_as_it_is_typed():
  require(True, "seed", 3, "be at least 0")
  with pytest.raises(UserError, match="^seed=-1 must be at least 0"):
    require(False, "seed", -1, "be at least 0")
