"""A trained workdir gives the same answers however it is asked."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
import trained_run

from fer_jax.data import load
from fer_jax.errors import UserError
from fer_jax.evaluation import predictions, tta
from fer_jax.inference.trained_model import TrainedModel

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture
def trained():
  return TrainedModel.load(trained_run.workdir())


@pytest.fixture
def split():
  prepared = str(trained_run.folder() / "prepared")
  return load("bars", data_dir=prepared).split("validation")


def test_a_workdir_is_all_it_needs(trained):
  assert trained.class_names == tuple("abcdefg")
  assert trained.image_shape == (48, 48, 1)
  assert trained.config.model.name == "tiny"
  assert trained.epoch in (1, 2)


def test_accuracy_is_what_training_reported(trained, split):
  arrays = split.arrays()
  probabilities = trained.probabilities(arrays["image"])
  np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
  accuracy = np.mean(probabilities.argmax(axis=1) == arrays["target"])
  lines = (trained.workdir / "metrics.jsonl").read_text().splitlines()
  epochs = [json.loads(line) for line in lines if "train_loss" in line]
  best = next(e for e in epochs if e["epoch"] == trained.epoch)
  assert accuracy == pytest.approx(best["validation_accuracy"])
  picked = probabilities[np.arange(len(split)), arrays["target"]]
  assert -np.log(picked).mean() == pytest.approx(
    best["validation_loss"], rel=1e-4
  )


def test_any_number_of_images_and_one_program(trained, split):
  images = split.arrays()["image"]
  whole = trained.probabilities(images)
  np.testing.assert_allclose(
    trained.probabilities(images[:3]), whole[:3], rtol=1e-5, atol=1e-6
  )
  assert trained.probabilities(images[:0]).shape == (0, 7)
  assert trained.programs["none"]._cache_size() == 1


def test_progress_counts_every_image_once(trained, split):
  told: list[int] = []
  trained.probabilities(split.arrays()["image"], progress=told.append)
  assert sum(told) == len(split) and len(told) > 1


def test_latest_is_the_last_epoch():
  latest = TrainedModel.load(trained_run.workdir(), "latest")
  assert latest.epoch == 2


def test_flipping_is_a_mean_over_both_sides(trained, split):
  images = split.arrays()["image"][:8]
  plain = trained.probabilities(images)
  mirrored = trained.probabilities(np.ascontiguousarray(images[:, :, ::-1]))
  np.testing.assert_allclose(
    trained.probabilities(images, "flip"),
    (plain + mirrored) / 2,
    rtol=1e-4,
    atol=1e-6,
  )


def test_ten_crops_cover_the_image_and_are_the_same_each_time(trained, split):
  images = jax.numpy.arange(48 * 48.0).reshape(1, 48, 48, 1)
  crops = tta.ten_crop(images, 48)
  assert len(crops) == 10 and all(c.shape == images.shape for c in crops)
  corners = np.array([crop[0, [0, -1]][:, [0, -1], 0] for crop in crops[:5]])
  assert corners.min() == 0 and corners.max() == 48 * 48 - 1
  np.testing.assert_array_equal(crops[5], crops[0][:, :, ::-1])
  few = split.arrays()["image"][:5]
  first = trained.probabilities(few, "ten_crop")
  np.testing.assert_array_equal(trained.probabilities(few, "ten_crop"), first)


def test_an_ensemble_is_the_mean(trained, split):
  latest = TrainedModel.load(trained_run.workdir(), "latest")
  both = predictions.predict([trained, latest], "validation")
  images = split.arrays()["image"]
  mean = (trained.probabilities(images) + latest.probabilities(images)) / 2
  np.testing.assert_allclose(both.probabilities, mean, rtol=1e-5, atol=1e-7)


def test_splits_are_joined(trained, tmp_path):
  both = predictions.predict([trained], "validation+test")
  sizes = tiny_run.NUM_VALIDATION, tiny_run.NUM_TEST
  assert both.splits == ["validation"] * sizes[0] + ["test"] * sizes[1]
  assert not both.leaks.any()
  both.write_csv(tmp_path / "p.csv")
  lines = (tmp_path / "p.csv").read_text().splitlines()
  assert lines[0] == "split,row,target,prediction,a,b,c,d,e,f,g"
  assert len(lines) == 1 + sum(sizes)
  assert lines[1].startswith("validation,0,")


def test_files_are_named_where_the_dataset_has_them(
  trained, tmp_path, monkeypatch
):
  opened, files = predictions.open_dataset, [f"a/{i}.png" for i in range(999)]
  monkeypatch.setattr(
    predictions,
    "open_dataset",
    lambda *places: opened(*places).replace(file_names=files),
  )
  predictions.predict([trained], "test").write_csv(tmp_path / "p.csv")
  header, first, *_ = (tmp_path / "p.csv").read_text().splitlines()
  assert header.startswith("split,row,file,target,prediction,a,")
  row = first.split(",")[1]
  assert first.startswith(f"test,{row},a/{row}.png,")


def test_mistakes_come_most_confident_first(trained):
  found = predictions.predict([trained], "validation")
  wrong = found.mistakes()
  assert set(wrong) == set(np.flatnonzero(found.predicted != found.labels))
  confidence = found.probabilities[wrong].max(axis=1)
  assert (np.diff(confidence) <= 0).all()


@pytest.mark.parametrize("checkpoint", ["best", "latest", "worst"])
def test_a_folder_without_a_run_is_named(tmp_path, checkpoint):
  message = "no trained model in "
  if checkpoint == "worst":
    message = "unknown checkpoint 'worst'"
  with pytest.raises(UserError, match=message):
    TrainedModel.load(tmp_path, checkpoint)
  assert not any(tmp_path.iterdir())


def test_an_unknown_split_is_named(trained):
  with pytest.raises(UserError, match="unknown split 'tets'"):
    predictions.predict([trained], "tets")


def test_bfloat16_is_computed_where_the_device_does(trained, monkeypatch):
  def computed(trained_in):
    config = trained.info["config"] | {"dtype": trained_in}
    info = trained.info | {"config": config}
    made = TrainedModel.from_variables(
      trained.variables, info, trained.workdir, "best"
    )
    return made.model.dtype

  assert computed("bfloat16") == np.float32  # on a CPU
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert computed("bfloat16") == jnp.bfloat16
  assert computed("float32") == np.float32
