"""Evaluation when the data, or where they lie, changed since the training."""

import dataclasses
import logging

import numpy as np
import pytest
import tiny_run
from PIL import Image

from fer_jax.errors import UserError
from fer_jax.evaluation import predictions
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.training import train_loop, workdir

pytestmark = pytest.mark.usefixtures("tiny_model")


def write_faces(folder, start, stop):
  for name in ("happy", "sad"):
    (folder / name).mkdir(parents=True, exist_ok=True)
    for i in range(start, stop):
      rng = np.random.default_rng(i + 100 * len(name))
      image = rng.integers(256, size=(48, 48), dtype=np.uint8)
      Image.fromarray(image).save(folder / name / f"{i}.png")


@pytest.fixture
def config(tmp_path):
  write_faces(tmp_path / "faces", 0, 10)
  return tiny_run.config(
    tmp_path / "prepared",
    dataset__name="folder",
    dataset__manual_dir=str(tmp_path / "faces"),
    dataset__holdout_validation=0.2,
    batch_size=8,
    eval_batch_size=8,
    num_epochs=1,
  )


@pytest.fixture
def trained(config, tmp_path):
  train_loop.train_and_evaluate(config, tmp_path / "run")
  return TrainedModel.load(tmp_path / "run")


@pytest.fixture
def warned(caplog):
  caplog.set_level(logging.WARNING, logger="absl")
  return lambda: [m for m in caplog.messages if "was trained on other" in m]


def test_images_added_since_the_training_draw_another_holdout(
  trained, tmp_path, warned
):
  predictions.predict([trained], "validation")
  assert warned() == []
  write_faces(tmp_path / "faces", 10, 15)
  predictions.predict([trained], "validation")
  [message] = warned()
  assert f"{tmp_path / 'run'} was trained on other data" in message
  assert "train: 16 -> 24 examples" in message
  predictions.predict([trained], "train")
  assert len(warned()) == 1


def test_each_model_of_an_ensemble_has_its_own_training_data(trained, warned):
  data = trained.info["data"] | {"fingerprints": {"train": "of another seed"}}
  other = dataclasses.replace(trained, info=trained.info | {"data": data})
  predictions.predict([trained, other], "validation")
  [message] = warned()
  assert "train: other images or labels" in message


def test_models_for_images_of_other_shapes_are_no_ensemble(trained):
  other = dataclasses.replace(trained, image_shape=(64, 64, 3))
  with pytest.raises(UserError, match=r"64 x 64 x 3, but .* 48 x 48 x 1"):
    predictions.predict([trained, other], "validation")


def test_data_are_looked_for_where_the_run_was_resumed_with_them(
  trained, config, tmp_path
):
  (tmp_path / "faces").rename(tmp_path / "moved")
  with pytest.raises(UserError, match="faces is no folder"):
    predictions.open_dataset(trained, None, None)
  config = config.copy_and_resolve_references()
  config.dataset.manual_dir = str(tmp_path / "moved")
  workdir.write_config(tmp_path / "run", config)
  assert len(predictions.open_dataset(trained, None, None).split("train")) == 16
