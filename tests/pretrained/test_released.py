"""Released models: what is written is read, and is what the run trained."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import trained_run

from fer_jax.errors import UserError
from fer_jax.evaluation import calibration, predictions
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.pretrained import release, released

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with the tests' trained run, released as "tiny"."""
  folder = tmp_path_factory.mktemp("released")
  with pytest.MonkeyPatch.context() as monkeypatch:
    tiny_run.register(monkeypatch)
    release.release(
      trained_run.workdir(),
      "tiny",
      folder,
      data_dir=str(trained_run.folder() / "prepared"),
    )
  return folder


@pytest.fixture
def images():
  return np.random.default_rng(0).integers(
    256, size=(5, 48, 48, 1), dtype=np.uint8
  )


def test_it_is_the_run_at_another_temperature(folder, images):
  run = TrainedModel.load(trained_run.workdir())
  model = released.load("tiny", folder=folder)
  assert model.class_names == run.class_names
  assert model.image_shape == run.image_shape
  logits = np.log(run.probabilities(images))
  warmer = np.exp(logits / model.info["temperature"])
  expected = warmer / warmer.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(model.probabilities(images), expected, atol=5e-3)


def test_it_says_where_it_is_from(folder):
  info = released.load("tiny", folder=folder).info
  assert info["name"] == "tiny"
  assert info["config"]["dataset"]["data_dir"] == ""
  scores = info["validation"]
  assert scores["images"] == 50
  assert 0 <= scores["accuracy"] <= 1
  assert 0 <= scores["calibration_error"] <= 1


def test_it_does_not_say_where_it_was_trained():
  config = tiny_run.config(Path("data"))
  paths = {"init_from": "a/run", "compilation_cache": "a/cache"}
  config.update_from_flattened_dict(paths | {"loss.teacher": "a/teacher"})
  release._generalize(config)
  assert not any((config.init_from, config.compilation_cache))
  assert not any((config.dataset.data_dir, config.loss.teacher))
  config.loss.teacher = "ferplus-resnet18"
  release._generalize(config)
  assert config.loss.teacher == "ferplus-resnet18"


@pytest.mark.parametrize("name", released.list_released())
def test_no_file_names_a_path(name):
  assert "/" not in json.dumps(released.load(name).info["config"])


def test_kernels_take_two_bytes(folder):
  size = (folder / "tiny.safetensors").stat().st_size
  run = TrainedModel.load(trained_run.workdir())
  params = sum(
    x.size for group in run.variables["params"].values() for x in leaves(group)
  )
  assert size < 2.3 * params + 8192


def leaves(tree):
  if isinstance(tree, dict):
    return [leaf for value in tree.values() for leaf in leaves(value)]
  return [tree]


def test_temperature_is_the_best_one():
  rng = np.random.default_rng(0)
  labels = rng.integers(4, size=4000)
  logits = rng.normal(size=(4000, 4))
  logits[np.arange(4000), labels] += 1.0
  calibrated = release.fit_temperature(logits, labels)
  # Logits three times as large need three times the temperature.
  tripled = release.fit_temperature(3 * logits, labels)
  assert tripled == pytest.approx(3 * calibrated, rel=1e-3)
  soft = np.exp(logits / calibrated)
  soft /= soft.sum(axis=1, keepdims=True)
  right = soft.argmax(axis=1) == labels
  assert calibration.calibrate(soft.max(axis=1), right).error < 0.03


def test_a_probability_of_zero_is_released(tmp_path, monkeypatch):
  found = predictions.Predictions(
    split="validation",
    class_names=("a", "b"),
    images=np.zeros((4, 1, 1, 1), np.uint8),
    targets=np.array([0, 1, 1, 1]),
    rows=np.arange(4),
    splits=["validation"] * 4,
    probabilities=np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32),
    leaks=np.zeros(4, bool),
  )
  monkeypatch.setattr(predictions, "predict", lambda *_, **__: found)
  info = release.release(trained_run.workdir(), "tiny", tmp_path)
  # One of four is wrong by more than any temperature makes good.
  assert info["temperature"] == pytest.approx(20, rel=0.01)
  assert info["validation"]["accuracy"] == 0.75


def test_a_damaged_file_is_refused(folder, tmp_path):
  data = bytearray((folder / "tiny.safetensors").read_bytes())
  data[-1] ^= 1
  (tmp_path / "tiny.safetensors").write_bytes(data)
  sums = (folder / released.CHECKSUMS).read_text()
  (tmp_path / released.CHECKSUMS).write_text(sums)
  with pytest.raises(UserError, match="is damaged"):
    released.load("tiny", folder=tmp_path)


def test_a_missing_file_is_one_line(folder, tmp_path):
  sums = (folder / released.CHECKSUMS).read_text()
  (tmp_path / released.CHECKSUMS).write_text(sums)
  with pytest.raises(UserError, match="install fer_jax again"):
    released.load("tiny", folder=tmp_path)


def test_unknown_names_list_the_known():
  with pytest.raises(UserError, match="ferplus-resnet18"):
    released.load("resnet9000")
  with pytest.raises(UserError, match="or a released model: .*ferplus"):
    released.load_model("no/such/run")


def test_load_model_takes_workdirs_too():
  model = released.load_model(trained_run.workdir(), "latest")
  assert model.checkpoint == "latest"


@pytest.mark.parametrize("name", released.list_released())
def test_every_file_is_whole_and_small(name):
  file = released.WEIGHTS / f"{name}.safetensors"
  data = file.read_bytes()
  sums = (released.WEIGHTS / released.CHECKSUMS).read_text()
  assert f"{hashlib.sha256(data).hexdigest()}  {file.name}" in sums
  limit = 6_000_000 if name.endswith("small") else 24_000_000
  assert len(data) <= limit


@pytest.mark.parametrize("name", released.list_released())
def test_every_released_model_answers(name, images):
  model = released.load(name, batch_size=1)
  assert model.class_names[:2] == ("neutral", "happiness")
  probabilities = model.probabilities(images[:1])
  assert probabilities.shape == (1, 8)
  np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
