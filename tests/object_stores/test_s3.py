"""Commands whose workdir is on a real S3 server, kills and errors included."""

import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.object_stores import whole_folders
from fer_jax.object_stores.objects import ObjectFolder

FIELDS = (
  "--config=chang_cnn",
  "--config.dataset.name=synthetic_faces",
  "--config.dataset.num_train=512",
  "--config.dataset.num_validation=128",
  "--config.dataset.num_test=128",
  "--config.batch_size=32",
  "--config.num_epochs=12",
  "--config.model.widths=4",
  "--config.parallel=jit",
  "--config.checkpoint.every_steps=1",
)


# Uploads sooner than users' runs do, so that short ones can be killed.
CODE = """
import runpy, sys
from fer_jax.object_stores import run_mirror
run_mirror.UPLOAD_SECONDS = 0.5
name = "fer_jax." + sys.argv.pop(1)
runpy.run_module(name, run_name="__main__", alter_sys=True)
"""


def start(command, *flags):
  return subprocess.Popen(
    [sys.executable, "-c", CODE, command, *flags],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def run(command, *flags):
  process = start(command, *flags)
  output, _ = process.communicate(timeout=300)
  return process.returncode, output


@pytest.fixture
def fields(prepared):
  return (*FIELDS, f"--config.dataset.data_dir={prepared}")


def test_objects_of_several_parts_come_back(s3, tmp_path):
  content = np.random.default_rng(0).bytes(12 << 20)
  (tmp_path / "large").write_bytes(content)
  folder = ObjectFolder(f"{s3}/run")
  folder.upload(["large"], tmp_path)
  assert folder.list()["large"] == len(content)
  folder.download(["large"], tmp_path / "back")
  assert (tmp_path / "back" / "large").read_bytes() == content


def test_a_missing_bucket_is_one_line(s3):
  with pytest.raises(UserError, match="bucket does not exist; check the name"):
    ObjectFolder("s3://other-bucket/run").list()
  with pytest.raises(UserError, match="bucket does not exist"):
    TrainedModel.load("s3://other-bucket/run")


def test_missing_credentials_are_one_line(s3, monkeypatch):
  monkeypatch.delenv("AWS_ACCESS_KEY_ID")
  monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
  with pytest.raises(UserError, match="no credentials: set AWS_ACCESS_KEY_ID"):
    ObjectFolder(f"{s3}/run").list()


def test_no_server_is_one_line(s3, monkeypatch):
  monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
  with pytest.raises(UserError, match="check the network and AWS_ENDPOINT_URL"):
    ObjectFolder(f"{s3}/run").write("x", b"")


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_run_resumes_exactly(s3, fields, tmp_path, stop):
  whole = run("train", *fields, f"--workdir={tmp_path / 'local'}")
  assert whole[0] == 0, whole[1]
  url = f"{s3}/run"
  process = start("train", *fields, f"--workdir={url}")
  folder, end = ObjectFolder(url), time.monotonic() + 200
  while time.monotonic() < end and process.poll() is None:
    complete, _ = whole_folders.find(folder.list(), "checkpoints")
    if complete.keys() - {"best"}:
      break
    time.sleep(0.1)
  process.send_signal(stop)
  output, _ = process.communicate(timeout=60)
  if stop == signal.SIGTERM:
    assert process.returncode == 128 + stop and url in output, output
  else:
    assert process.returncode == -stop, output
  status, output = run("train", *fields, f"--workdir={url}")
  assert status == 0 and f"workdir {url}, resumed in epoch" in output, output
  for which in ("best", "latest"):
    jax.tree.map(
      np.testing.assert_array_equal,
      TrainedModel.load(url, which).variables,
      TrainedModel.load(tmp_path / "local", which).variables,
    )


@pytest.mark.slow
def test_commands_read_a_run(s3, fields, prepared, tmp_path):
  url = f"{s3}/run"
  assert run("train", *fields, f"--workdir={url}")[0] == 0
  data = f"--data_dir={prepared}"
  commands = {
    "evaluate": (f"--workdir={url}", "--split=validation", data),
    "export": (f"--workdir={url}",),
    "explain": (
      f"--workdir={url}",
      data,
      "--count=2",
      f"--output={tmp_path}/x.png",
    ),
    "train": (*fields, f"--config.init_from={url}", f"--workdir={s3}/other"),
  }
  for command, flags in commands.items():
    status, output = run(command, *flags)
    assert status == 0, output
  status, output = run(
    "predict", f"--workdir={url}", f"{tmp_path}/x.png", "--nodetect"
  )
  assert status == 0 and "%" in output, output
  names = ObjectFolder(url).list()
  assert {"report/index.html", "export/model_cpu.stablehlo"} <= names.keys()


@pytest.mark.slow
def test_a_second_run_is_refused(s3, fields):
  first = start(
    "train", *fields, "--config.num_epochs=1000", f"--workdir={s3}/run"
  )
  leases = ObjectFolder(f"{s3}/run/.leases")
  try:
    end = time.monotonic() + 100
    while not leases.list() and time.monotonic() < end:
      time.sleep(0.1)
    status, output = run("train", *fields, f"--workdir={s3}/run")
    assert status == 1, output
    assert f"another process is training in {s3}/run (process {first.pid}" in (
      output
    )
  finally:
    first.kill()
    first.communicate()
