"""Grad-CAM against its definition, and the maps of attention."""

import dataclasses
import functools
from concurrent import futures
from typing import Any

import jax
import numpy as np
import pytest
import tiny_run
import trained_run

import fer_jax
from fer_jax.data.inspect import image_sheets
from fer_jax.errors import UserError
from fer_jax.inference import explanation_sheets, gradcam
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.models.resnet import BasicBlock, ResNet
from fer_jax.ops import dispatch


@pytest.fixture
def trained(monkeypatch):
  tiny_run.register(monkeypatch)
  return TrainedModel.load(trained_run.workdir())


def pictures(num):
  rng = np.random.default_rng(0)
  return rng.integers(256, size=(num, 48, 48, 1), dtype=np.uint8)


def test_layers_are_those_with_maps(trained):
  found = gradcam.layers(trained)
  assert list(found) == ["conv1", "bn1", "layer1_0"]
  assert found["layer1_0"] == (6, 6)
  assert gradcam.default_layer(trained) == "layer1_0"


def test_layers_are_found_of_a_model_that_was_compiled(trained):
  compiled = jax.jit(trained.logits)
  compiled(pictures(1))
  assert gradcam.default_layer(trained) == "layer1_0"


def test_threads_may_explain_at_once(trained):
  with futures.ThreadPoolExecutor(4) as pool:
    maps = list(
      pool.map(lambda _: gradcam.gradcam(trained, pictures(1)), "abcd")
    )
  for values in maps:
    np.testing.assert_array_equal(values, maps[0])


def test_maps_are_the_papers_formula(trained):
  # What follows the last block is a mean over places and a dense layer, so the
  # gradient of a logit by the maps is the class's column of weights.
  images = pictures(3)
  found = gradcam.gradcam(trained, images)
  assert found.shape == (3, 48, 48)
  assert found.min() >= 0 and found.max() <= 1
  maps = np.asarray(
    gradcam._output(trained, "layer1_0", images, trained.variables)
  )
  kernel = np.asarray(trained.variables["params"]["fc"]["kernel"])
  labels = trained.probabilities(images).argmax(axis=1)
  for i, label in enumerate(labels):
    raw = np.maximum((maps[i] * kernel[:, label]).sum(axis=-1), 0)
    if raw.max() > raw.min():
      place = np.unravel_index(raw.argmax(), raw.shape)
      y, x = (8 * p + 4 for p in place)
      assert found[i, y - 4 : y + 4, x - 4 : x + 4].max() > 0.9


def test_batches_do_not_matter(trained):
  images = pictures(5)
  whole = gradcam.gradcam(trained, images)
  again = np.concatenate(
    [gradcam.gradcam(trained, images[i : i + 1]) for i in range(5)]
  )
  np.testing.assert_allclose(whole, again, atol=1e-4)
  assert gradcam.gradcam(trained, images[:0]).shape == (0, 48, 48)


def test_an_unknown_layer_lists_what_there_is(trained):
  with pytest.raises(UserError, match="unknown layer 'fc'.*layer1_0"):
    gradcam.gradcam(trained, pictures(1), "fc")


def test_attention_needs_attention(trained):
  with pytest.raises(UserError, match="has no spatial attention"):
    explanation_sheets.explain(trained, pictures(1), attention=True)


def test_a_sheet_has_every_image(trained):
  targets = np.array([0, 1, 2])
  sheet = explanation_sheets.explain(trained, pictures(3), targets)
  assert sheet.width > 200 and sheet.height > 100


def test_the_class_explained_is_the_one_predicted(trained, images, monkeypatch):
  mapped, shown = [], []
  maps_of = gradcam.gradcam

  def noted(trained, images, layer, labels):
    mapped.append([trained.class_names[label] for label in labels])
    return maps_of(trained, images, layer, labels)

  def sheet(groups, title):
    captions = (pictures[0][1] for _, pictures in groups)
    shown.append([caption.rpartition(" ")[0] for caption in captions])

  monkeypatch.setattr(gradcam, "gradcam", noted)
  monkeypatch.setattr(image_sheets, "group_sheet", sheet)
  faces = list(images)
  labels = {}
  for tta in ("none", "ten_crop"):
    model = Predictor(trained, tta=tta)
    labels[tta] = [face.label for face in model.predict(faces, detect=False)]
    model.explain(faces, detect=False)
    fer_jax.explain_model(model, faces)
    assert mapped == shown == [labels[tta]] * 2
    mapped.clear()
    shown.clear()
  assert labels["none"] != labels["ten_crop"]


def test_maps_of_attention_are_read_out(trained, monkeypatch):
  # Once to compile, so quickly.
  quick = {"xla_backend_optimization_level": 0}
  quick_jit = functools.partial(jax.jit, compiler_options=quick)
  monkeypatch.setattr(jax, "jit", quick_jit)
  model = ResNet(
    (11,), BasicBlock, num_classes=7, width=1 / 16, attention="sequential"
  )
  init = functools.partial(model.init, train=False)
  image = np.zeros((1, 24, 24, 1), np.float32)
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda x: np.float32(
      rng.normal(0, 0.1, x.shape)
      if x.ndim > 1
      else rng.uniform(0.5, 1.5, x.shape)
    ),
    jax.eval_shape(init, jax.random.key(0), image),
  )
  other = dataclasses.replace(
    trained, model=model, variables=variables, batch_size=2
  )
  with dispatch.use_xla():
    maps = gradcam.attention(other, pictures(3))
    assert list(maps) == [f"layer1_{i}" for i in range(11)]
    assert all(values.shape == (3, 48, 48) for values in maps.values())
    again = gradcam.attention(other, pictures(3)[[2, 0]])
  for name, values in maps.items():
    np.testing.assert_allclose(values[[2, 0]], again[name], atol=1e-5)
  assert maps["layer1_0"].max() > 0.99
  assert other.programs["attention"]._cache_size() == 1


@pytest.mark.parametrize(
  ("labels", "message"),
  [
    ([0, 7], r"labels\[1\]=7 must be 0 to 6"),
    ([0, -1], r"labels\[1\]=-1 must be 0 to 6"),
    ([0.5, 1.0], "labels.dtype=float64 must be integers"),
    ([0], r"labels.shape=\(1,\) must be \(2,\)"),
  ],
)
def test_labels_are_one_class_per_image(trained, labels, message):
  with pytest.raises(UserError, match=message):
    gradcam.gradcam(trained, pictures(2), labels=np.array(labels))


def test_explaining_again_compiles_nothing(trained, monkeypatch):
  first = gradcam.gradcam(trained, pictures(3))
  monkeypatch.setattr(jax, "jit", pytest.fail)
  (program,) = (
    p for p in trained.programs.values() if isinstance(p, gradcam.GradCam)
  )
  np.testing.assert_array_equal(gradcam.gradcam(trained, pictures(3)), first)
  gradcam.gradcam(trained, pictures(4))
  step: Any = program._step
  assert step._cache_size() == 1
