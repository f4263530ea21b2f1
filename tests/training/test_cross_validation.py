"""Cross-validation: a run that never saw it tests each example once."""

import json
import types

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_run

from fer_jax.data.datasets import registry
from fer_jax.data.datasets.builder import FaceBuilder
from fer_jax.errors import Interrupted, UserError
from fer_jax.training import cross_validation
from fer_jax.training.runtime import signals


class Folded(FaceBuilder):
  """Bars in three folds: fold k tests on every third example, from k."""

  VERSION = tfds.core.Version("1.0.0")
  classes = tuple("abcdefg")
  default_options = {"fold": 0, "num_folds": 3}

  def read_examples(self):
    """Returns the examples of the fold."""
    rows = list(tiny_run.bars(200))
    fold, num_folds = self.options["fold"], self.options["num_folds"]
    rest = [row for row in rows if row[2] % num_folds != fold]
    return {
      "train": rest[30:],
      "validation": rest[:30],
      "test": rows[fold::num_folds],
    }


@pytest.fixture
def config(tmp_path, monkeypatch):
  tiny_run.register(monkeypatch)
  monkeypatch.setitem(registry.DATASETS, "folded", f"{__name__}:Folded")
  return tiny_run.config(
    tmp_path / "prepared", dataset__name="folded", num_epochs=1
  )


def test_folds_are_pooled_and_not_trained_again(config, tmp_path, capsys):
  folds = cross_validation.cross_validate(config, tmp_path / "runs")
  assert [f.fold for f in folds.folds] == [0, 1, 2]
  assert [f.num_test for f in folds.folds] == [67, 67, 66]
  right = sum(f.test_accuracy * f.num_test for f in folds.folds)
  np.testing.assert_allclose(folds.accuracy, right / 200)
  assert float(right) == pytest.approx(round(right))
  for fold in range(3):
    written = json.loads(
      (tmp_path / f"runs/fold_{fold}/config.json").read_text()
    )
    assert written["dataset"]["fold"] == fold
  saved = json.loads((tmp_path / "runs/folds.json").read_text())
  assert saved["pooled"]["accuracy"] == folds.accuracy
  assert len(saved["folds"]) == 3
  assert "pooled over 200 examples" in str(folds)
  lines = (tmp_path / "runs/fold_1/metrics.jsonl").read_text()
  capsys.readouterr()
  again = cross_validation.cross_validate(config, tmp_path / "runs")
  assert again == folds
  after = (tmp_path / "runs/fold_1/metrics.jsonl").read_text()
  assert after.count('"validation_loss"') == lines.count('"validation_loss"')


def test_a_home_folder_is_expanded(config, tmp_path, monkeypatch):
  result = types.SimpleNamespace(
    best_epoch=1,
    test=types.SimpleNamespace(num_examples=3, loss=1.0, accuracy=0.5),
  )

  def train(config, workdir, *, deadline):
    workdir.mkdir(parents=True)
    return result

  monkeypatch.setattr(cross_validation.train_loop, "train_and_evaluate", train)
  monkeypatch.setenv("HOME", str(tmp_path))
  cross_validation.cross_validate(config, "~/cv")
  assert (tmp_path / "cv" / "folds.json").exists()


def test_folds_share_a_time_limit(config, tmp_path, monkeypatch):
  with config.unlocked():
    config.max_minutes = 1.5
  now, deadlines = [0.0], []
  result = types.SimpleNamespace(
    best_epoch=1,
    test=types.SimpleNamespace(num_examples=3, loss=1.0, accuracy=0.5),
  )

  def train(config, workdir, *, deadline):
    deadlines.append(deadline)
    now[0] += 60
    workdir.mkdir(parents=True, exist_ok=True)
    record = {"kind": "summary", "step": 1}
    (workdir / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    return result

  clock = types.SimpleNamespace(monotonic=lambda: now[0])
  monkeypatch.setattr(signals, "time", clock)
  monkeypatch.setattr(cross_validation.train_loop, "train_and_evaluate", train)
  with pytest.raises(Interrupted, match="time limit") as stopped:
    cross_validation.cross_validate(config, tmp_path / "cv")
  assert stopped.value.exit_code == 142
  assert deadlines == [90, 90]
  train(config, tmp_path / "cv" / "fold_2", deadline=90)
  # All are trained: they are evaluated, however long that takes.
  assert (
    len(cross_validation.cross_validate(config, tmp_path / "cv").folds) == 3
  )


@pytest.mark.parametrize("num_folds", [-1, 0, 1])
def test_the_number_of_folds_is_checked(config, tmp_path, num_folds):
  with config.unlocked():
    config.dataset.num_folds = num_folds
  with pytest.raises(UserError, match="num_folds=.* must be an integer of at"):
    cross_validation.cross_validate(config, tmp_path)


def test_a_dataset_without_folds_is_refused(config, tmp_path):
  with config.unlocked():
    config.dataset.name = "bars"
  with pytest.raises(UserError, match="dataset bars has no folds"):
    cross_validation.cross_validate(config, tmp_path)
