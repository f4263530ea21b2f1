"""Runs on a store in memory: train, resume, damage, evaluate, export."""

import shutil
import threading
import time

import jax
import numpy as np
import pytest
import tiny_run
import trained_run

import fer_jax
from fer_jax.errors import UserError
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.object_stores import lease, run_mirror, urls
from fer_jax.object_stores.objects import ObjectFolder, StoreError
from fer_jax.training import initial_weights, train_loop
from fer_jax.training.logging import metric_writer


class Stop(Exception):
  """Ends a run after an epoch."""


def stop(metrics):
  raise Stop


def variables(workdir):
  return TrainedModel.load(workdir, "latest").variables


def assert_equal(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture
def workdir(memory_store, trained_workdir):
  """The URL of a run that was interrupted after its first epoch."""
  url = f"{memory_store}/run"
  config = tiny_run.config(trained_run.folder() / "prepared")
  with pytest.raises(Stop):
    train_loop.train_and_evaluate(config, url, stop)
  return url


def resume(workdir):
  config = tiny_run.config(trained_run.folder() / "prepared")
  return train_loop.train_and_evaluate(config, workdir)


def damage(workdir, start):
  """Flips a bit of a checkpoint's largest object; returns its name."""
  folder = ObjectFolder(workdir)
  sizes = {n: s for n, s in folder.list().items() if n.startswith(start)}
  name = max(sizes, key=lambda name: sizes[name])
  content = bytearray(folder.read(name) or b"")
  content[len(content) // 2] ^= 1
  folder.write(name, bytes(content))
  return name


def test_a_run_on_a_store_is_that_of_a_folder(
  workdir, trained_workdir, tmp_path
):
  result = resume(workdir)
  assert str(result.workdir) == workdir
  assert_equal(variables(workdir), variables(trained_workdir))
  kept = ("step", "train_loss", "validation_loss", "best")
  ours, theirs = (
    [
      [r[k] for k in kept]
      for r in metric_writer.read(w)
      if r["kind"] == "epoch"
    ]
    for w in (workdir, trained_workdir)
  )
  assert ours == theirs
  names = ObjectFolder(workdir).list()
  assert {"config.json", "metrics.jsonl", "curves.png"} <= names.keys()
  assert not [n for n in names if ".leases" in n or ".incomplete" in n]
  steps = {n.split("/")[1] for n in names if n.startswith("checkpoints/")}
  assert steps == {"5", "10", "best"}

  scores = fer_jax.evaluate_model(workdir, output=f"{workdir}/report")
  assert scores.scores.accuracy == result.test.accuracy
  assert ObjectFolder(workdir).read("report/index.html")
  exported = fer_jax.export_model(workdir)
  assert str(exported.files[0]).startswith(f"{workdir}/export/")
  assert "MB" in str(exported)
  weights = initial_weights.read(workdir)
  assert weights.source == workdir


def test_a_damaged_latest_checkpoint_is_set_aside(workdir, trained_workdir):
  resume(workdir)
  damage(workdir, "checkpoints/10/state/")
  config = tiny_run.config(trained_run.folder() / "prepared")
  train_loop.train_and_evaluate(config, workdir)
  assert_equal(variables(workdir), variables(trained_workdir))
  warning, *_ = [
    r for r in metric_writer.read(workdir) if r["kind"] == "warning"
  ]
  assert "wrong checksum" in warning["message"]
  names = ObjectFolder(workdir).list()
  assert any(n.startswith("checkpoints/damaged-10-wrong-ch") for n in names)


def test_a_damaged_best_checkpoint_is_refused(workdir):
  name = damage(workdir, "checkpoints/best/")
  with pytest.raises(UserError, match=f"{workdir}/{name} is damaged"):
    TrainedModel.load(workdir)


def test_an_unfinished_upload_is_replaced(workdir, trained_workdir):
  folder = ObjectFolder(workdir) / "checkpoints/7"
  folder.write(".incomplete", b"")
  folder.write("state/part", b"of a checkpoint")
  resume(workdir)
  assert not folder.list()
  assert_equal(variables(workdir), variables(trained_workdir))


def test_another_configuration_is_refused_by_url(workdir):
  config = tiny_run.config(trained_run.folder() / "prepared", seed=3)
  with pytest.raises(UserError, match=f"{workdir} holds a run of another"):
    train_loop.train_and_evaluate(config, workdir)


@pytest.mark.parametrize(
  ("place", "method", "error"),
  [
    (ObjectFolder, "upload", StoreError("cannot write: no network")),
    (lease.Lease, "check", lease.HeldError("another process is training")),
  ],
)
def test_what_cannot_be_uploaded_is_kept(
  workdir, monkeypatch, tmp_path, place, method, error
):
  def fail(*args):
    raise error

  monkeypatch.setattr(place, method, fail)
  monkeypatch.setattr(run_mirror.scratch.tempfile, "tempdir", str(tmp_path))
  with pytest.raises(UserError, match="kept in") as raised:
    resume(workdir)
  (kept,) = tmp_path.glob("*/run")
  assert f"{error}. The run is kept in {kept}" in str(raised.value)
  assert (kept / "checkpoints" / "10").is_dir()


def test_a_checkpoint_that_is_being_deleted_is_not_uploaded(workdir):
  def finish(folder):
    time.sleep(0.2)
    shutil.rmtree(folder)

  with run_mirror.opened(urls.to_path(workdir)) as local:
    partial = local / "checkpoints" / "6"
    shutil.copytree(local / "checkpoints" / "5", partial)
    shutil.rmtree(partial / "state")
    deleting = threading.Thread(target=finish, args=(partial,))
    deleting.start()
  deleting.join()
  assert not (ObjectFolder(workdir) / "checkpoints/6").list()
  assert (ObjectFolder(workdir) / "checkpoints/5").list()


def test_a_removed_copy_deletes_nothing(workdir):
  names = set(ObjectFolder(workdir).list())
  with run_mirror.opened(urls.to_path(workdir)) as local:
    shutil.rmtree(local)
  assert set(ObjectFolder(workdir).list()) == names


def test_there_is_no_run(memory_store):
  with pytest.raises(UserError, match="no trained model in gs://"):
    TrainedModel.load(f"{memory_store}/nothing")
  with pytest.raises(UserError, match="workdir=gs://.*of this machine"):
    fer_jax.run_study(["resnet18"], workdir=f"{memory_store}/study")
