"""A run is resumed on the data it started with, and on no others."""

import shutil

import numpy as np
import pytest
import tiny_run
from PIL import Image

from fer_jax import config as configs
from fer_jax.errors import UserError
from fer_jax.training import train_loop
from fer_jax.training.create_experiment import create_experiment

SPLITS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch):
  tiny_run.register(monkeypatch)


@pytest.fixture
def root(tmp_path):
  """Twelve images of each of two classes, in every split."""
  root = tmp_path / "faces"
  for s, split in enumerate(SPLITS):
    for c, name in enumerate(("happy", "sad")):
      (root / split / name).mkdir(parents=True)
      rng = np.random.default_rng((s, c))
      for i in range(12):
        pixels = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / split / name / f"{i:02}.png")
  return root


@pytest.fixture
def config(root, tmp_path):
  """Returns a small configuration on these images."""

  def make(**fields):
    made = tiny_run.config(tmp_path / "prepared", num_epochs=2)
    with made.unlocked(), made.ignore_type():
      made.dataset.name = "folder"
      made.dataset.manual_dir = str(root)
      made.dataset.image_size = 24
      made.input.image_size = made.input.channels = None
      made.batch_size = 8
      made.update_from_flattened_dict(fields)
    return made

  return make


def stop_after_one_epoch(metrics):
  raise RuntimeError("stopped")


@pytest.fixture
def workdir(config, tmp_path):
  """A run that was stopped after its first epoch."""
  with pytest.raises(RuntimeError, match="stopped"):
    train_loop.train_and_evaluate(
      config(), tmp_path / "run", after_epoch=stop_after_one_epoch
    )
  return tmp_path / "run"


def test_a_renamed_class_is_refused_and_listed(root, config, workdir):
  for split in SPLITS:
    (root / split / "happy").rename(root / split / "zhappy")
  with pytest.raises(UserError) as error:
    train_loop.train_and_evaluate(config(), workdir)
  message = str(error.value)
  assert "class_names: happy, sad -> sad, zhappy" in message
  assert "train: other images or labels" in message and "\n" not in message


def test_other_images_are_refused(root, config, workdir):
  extra = root / "validation/sad/00.png"
  shutil.copy(root / "train/happy/03.png", extra)
  with pytest.raises(UserError, match="[(]validation: other images or labels"):
    train_loop.train_and_evaluate(config(), workdir)
  extra.unlink()
  with pytest.raises(UserError, match="validation: 24 -> 23 examples"):
    train_loop.train_and_evaluate(config(), workdir)


def test_the_same_images_elsewhere_resume(root, config, workdir, tmp_path):
  shutil.copytree(root, tmp_path / "copy")
  shutil.rmtree(root)
  moved = config(**{"dataset.manual_dir": str(tmp_path / "copy")})
  result = train_loop.train_and_evaluate(moved, workdir)
  assert len(result.epochs) == 2


def test_what_a_checkpoint_of_an_older_version_knows_is_compared(config):
  """It has the number of training images only."""
  made = create_experiment(config())
  old = {
    "class_names": ["happy", "sad"],
    "image_shape": [24, 24, 1],
    "num_rows": 24,
    "config": {},
  }
  made.check_same_data(old)
  with pytest.raises(UserError, match="train: 23 -> 24 examples"):
    made.check_same_data({**old, "num_rows": 23})
  with pytest.raises(UserError, match="class_names: sad, happy -> happy, sad"):
    made.check_same_data({**old, "class_names": ["sad", "happy"]})
  taught = {**old, "config": {"loss": {"teacher": "runs/large"}}}
  with pytest.raises(UserError, match="loss.teacher= is not the model"):
    made.check_same_data(taught)


@pytest.mark.parametrize(
  ("fields", "shape"),
  [
    ({}, (24, 24, 1)),
    ({"dataset.image_size": 32, "dataset.color": True}, (32, 32, 3)),
    ({"dataset.color": True, "input.image_size": 16}, (16, 16, 3)),
    ({"input.channels": 3, "input.image_size": 48}, (48, 48, 3)),
  ],
)
def test_the_input_follows_the_data_unless_it_is_set(config, fields, shape):
  made = create_experiment(config(**fields))
  assert made.input_shape == shape
  stored = configs.to_json(made.config)["input"]
  assert (stored["image_size"], stored["channels"]) == (shape[0], shape[2])


def test_color_that_the_input_removes_is_refused(config):
  fields = {"dataset.color": True, "input.channels": 1}
  with pytest.raises(UserError, match="color=True has no effect.*channels=1"):
    create_experiment(config(**fields))


def test_another_input_than_the_runs_is_refused(config, workdir):
  with pytest.raises(UserError, match="input.image_size: 24 -> 16"):
    train_loop.train_and_evaluate(config(**{"input.image_size": 16}), workdir)
  result = train_loop.train_and_evaluate(
    config(**{"input.image_size": 24}), workdir
  )
  assert len(result.epochs) == 2
