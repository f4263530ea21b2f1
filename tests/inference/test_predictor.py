"""Answers about images: crops, batches, errors, and the command's loop."""

import json

import numpy as np
import pytest
import tiny_run
import trained_run
from PIL import Image

import fer_jax
from fer_jax.data import load
from fer_jax.errors import UserError
from fer_jax.faces.detection import Face
from fer_jax.inference import predict_images
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.trained_model import Trained


@pytest.fixture(autouse=True)
def registered(monkeypatch):
  tiny_run.register(monkeypatch)


@pytest.fixture
def images():
  prepared = str(trained_run.folder() / "prepared")
  return load("bars", data_dir=prepared).split("test").arrays()["image"]


def two_faces(image):
  """Finds the left and the right half of any image."""
  h, w, _ = image.shape
  return [
    Face((0, 0, w / 2, h), None, None, 0.9),
    Face((w / 2, 0, w / 2, h), None, None, 0.8),
  ]


@pytest.fixture
def predictor():
  trained = Trained.load(trained_run.workdir(), batch_size=8)
  return Predictor(trained, detector=two_faces)


def test_crops_are_classified_as_the_data_set_is(images):
  predictor = fer_jax.load(trained_run.workdir(), batch_size=8)
  found = predictor.predict(list(images[:11]), detect=False)
  expected = predictor.trained.probabilities(images[:11])
  assert len(found) == 11 and found[3].source == "3"
  for prediction, row in zip(found, expected, strict=True):
    np.testing.assert_allclose(
      list(prediction.probabilities.values()), row, rtol=1e-5, atol=1e-7
    )
    assert prediction.label == "abcdefg"[row.argmax()]
    assert prediction.probability == pytest.approx(row.max())
    assert prediction.box is None and prediction.score is None


def test_every_form_of_an_image_is_taken(images, tmp_path, predictor):
  grey = images[0, ..., 0]
  Image.fromarray(grey).save(tmp_path / "face.png")
  forms = [
    images[0],
    grey,
    np.repeat(images[0], 3, axis=2),
    Image.fromarray(grey),
    tmp_path / "face.png",
    str(tmp_path / "face.png"),
  ]
  found = predictor.predict(forms, detect=False)
  for prediction in found:
    np.testing.assert_array_equal(prediction.crop, images[0])
  assert found[4].source == str(tmp_path / "face.png")
  (single,) = predictor.predict(grey, detect=False)
  assert single.label == found[0].label


def test_faces_are_found_and_cut_out(images, predictor):
  found = predictor.predict(images[0])
  assert [p.score for p in found] == [0.9, 0.8]
  assert found[1].box == (24.0, 0, 24.0, 48)
  assert all(p.crop.shape == (48, 48, 1) for p in found)
  assert json.loads(json.dumps(found[1].to_json()))["box"] == [24, 0, 24, 48]


@pytest.mark.parametrize(
  "image", [np.zeros((4, 4)), np.zeros((0, 4), np.uint8), "missing.png"]
)
def test_what_is_no_image_is_named(image, predictor):
  with pytest.raises(UserError, match="cannot read image 0"):
    predictor.predict([image], detect=False)


@pytest.fixture
def folder(images, tmp_path):
  for i in range(10):
    (tmp_path / "in" / "sub").mkdir(parents=True, exist_ok=True)
    Image.fromarray(images[i, ..., 0]).save(tmp_path / f"in/sub/{i}.png")
  (tmp_path / "in/broken.jpg").write_bytes(b"?")
  (tmp_path / "in/notes.txt").write_text("?")
  return tmp_path / "in"


def test_broken_images_are_named_skipped_and_counted(
  folder, predictor, capsys, tmp_path
):
  counts = predict_images.answer(
    predictor,
    predict_images.find_images([folder]),
    as_json=True,
    annotate=tmp_path / "out",
  )
  assert (counts.images, counts.unreadable, counts.faces) == (11, 1, 20)
  out, err = capsys.readouterr()
  lines = [json.loads(line) for line in out.splitlines()]
  assert len(lines) == 20 and {
    len(line["probabilities"]) for line in lines
  } == {7}
  assert "skipped" in err and "broken.jpg" in err
  drawn = sorted(path.name for path in (tmp_path / "out").iterdir())
  assert drawn == [f"{i}.png" for i in range(10)]
  picture = np.asarray(Image.open(tmp_path / "out/3.png"))
  assert picture.shape[2] == 3 and (picture == (255, 196, 0)).all(2).any()


def test_batches_are_full(folder, predictor, monkeypatch):
  sizes = []
  probabilities = Trained.probabilities

  def noted(self, images, *args):
    sizes.append(len(images))
    return probabilities(self, images, *args)

  monkeypatch.setattr(Trained, "probabilities", noted)
  predict_images.answer(predictor, predict_images.find_images([folder]))
  assert sizes == [8, 8, 4]


def test_the_table_names_the_whole_image(folder, predictor, capsys):
  counts = predict_images.answer(
    predictor, [folder / "sub/0.png"], detect=False
  )
  assert counts.faces == 1
  assert "whole" in capsys.readouterr().out


def test_missing_inputs_are_named(tmp_path):
  with pytest.raises(UserError, match="x.png does not exist"):
    predict_images.find_images([tmp_path / "x.png"])
  with pytest.raises(UserError, match="no images in"):
    predict_images.find_images([tmp_path])
