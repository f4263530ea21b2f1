"""The documented network of one's own: found, trained on, exported."""

import dataclasses
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
import trained_run

import fer_jax
from fer_jax.data import normalization
from fer_jax.errors import UserError
from fer_jax.inference import exporting, gradcam
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.models import registry

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "train.md"


@pytest.fixture
def file(monkeypatch, tmp_path) -> pathlib.Path:
  monkeypatch.setattr(registry, "MODELS", dict(registry.MODELS))
  blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
  (block,) = (block for block in blocks if "MODELS" in block)
  place = tmp_path / "my_network.py"
  place.write_text(block)
  return place


@pytest.fixture
def own(file, monkeypatch) -> TrainedModel:
  tiny_run.register(monkeypatch)
  trained = TrainedModel.load(trained_run.workdir())
  config: Any = fer_jax.get_config(file, {"model.hidden": 16})
  options = config.model.to_dict()
  model = fer_jax.create_model(options.pop("name"), 7, **options)
  prepared = normalization.prepare(
    jnp.asarray(pictures()), **trained.config.input
  )
  changed = trained.config.copy_and_resolve_references()
  changed.model = config.model
  variables = model.init(jax.random.key(0), prepared)
  return dataclasses.replace(
    trained, model=model, variables=variables, config=changed
  )


def pictures() -> np.ndarray:
  rng = np.random.default_rng(0)
  return rng.integers(256, size=(2, 48, 48, 1), dtype=np.uint8)


def test_a_file_in_the_environment_is_found_by_name(file, monkeypatch):
  with pytest.raises(UserError, match="or set FER_JAX_NETWORKS to the file"):
    fer_jax.create_model("mine", 7)
  monkeypatch.setenv("FER_JAX_NETWORKS", str(file))
  assert fer_jax.create_model("mine", 7, hidden=8).hidden == 8
  with pytest.raises(UserError, match="unknown model 'mime'"):
    fer_jax.create_model("mime", 7)


@pytest.mark.parametrize(
  "text, complaint",
  [(None, "No such file"), ("1 / 0", "ZeroDivisionError"), ("", "unknown mod")],
)
def test_a_file_that_does_not_help_is_one_line(
  file, monkeypatch, text, complaint
):
  file.unlink()
  if text is not None:
    file.write_text(text)
  monkeypatch.setenv("FER_JAX_NETWORKS", str(file))
  with pytest.raises(UserError, match=complaint):
    fer_jax.create_model("mine", 7)


def test_it_is_exported_but_not_explained(own, tmp_path):
  assert own.probabilities(pictures()).shape == (2, 7)
  for name in exporting.FORMATS:
    exporting.export(own, tmp_path / name, name)
  with pytest.raises(UserError, match="^model mine has no layer with feature"):
    gradcam.GradCam(own)


def test_a_fixed_batch_size_is_not_exported(own, file, tmp_path):
  file.write_text(file.read_text().replace("x.shape[0]", "len(x)"))
  config: Any = fer_jax.get_config(file)
  model = fer_jax.create_model(config.model.name, 7, hidden=16)
  fixed = dataclasses.replace(own, model=model)
  assert fixed.probabilities(pictures()).shape == (2, 7)
  for name in exporting.FORMATS:
    with pytest.raises(UserError, match=r"batch size from x\.shape\[0\]"):
      exporting.export(fixed, tmp_path / name, name)
