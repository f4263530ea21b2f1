"""Exported programs answer as the model does, for any number of images."""

import dataclasses
import json

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
import trained_run

from fer_jax.errors import UserError
from fer_jax.inference import exporting
from fer_jax.inference.trained_model import TrainedModel


@pytest.fixture
def trained(monkeypatch):
  tiny_run.register(monkeypatch)
  return TrainedModel.load(trained_run.workdir())


def test_the_program_is_the_model(trained, tmp_path):
  files = exporting.export(trained, tmp_path / "out")
  assert {path.name for path in files} == {
    "model_cpu.stablehlo",
    "model_gpu_tpu.stablehlo",
    "model.json",
    "README.md",
  }
  described = json.loads((tmp_path / "out/model.json").read_text())
  assert described["class_names"] == list("abcdefg")
  content = (tmp_path / "out/model_cpu.stablehlo").read_bytes()
  program = jax.export.deserialize(bytearray(content))
  rng = np.random.default_rng(0)
  for number in (1, 5):
    images = rng.integers(256, size=(number, 48, 48, 1), dtype=np.uint8)
    np.testing.assert_allclose(
      program.call(images), trained.probabilities(images), rtol=1e-5, atol=1e-6
    )


def test_the_other_platforms_have_their_program(trained):
  program = exporting.program(trained, ("cuda", "rocm", "tpu"))
  assert program.platforms == ("cuda", "rocm", "tpu")
  assert "convolution" in program.mlir_module()


def test_the_cpu_program_is_the_same_from_every_machine(trained, monkeypatch):
  def operations(trained):
    text = exporting.program(trained, ("cpu",)).mlir_module()
    names = ("stablehlo.convolution", "stablehlo.dot_general", "bf16")
    return [text.count(name) for name in names]

  expected = operations(trained)
  half = trained.model.clone(dtype=jnp.bfloat16)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert operations(dataclasses.replace(trained, model=half)) == expected
  assert expected[1] > 1 and expected[2] == 0


def test_the_other_program_computes_in_the_trained_type(trained):
  config = trained.config.copy_and_resolve_references()
  config.dtype = "bfloat16"
  half = dataclasses.replace(trained, config=config)
  assert "bf16" in exporting.program(half, ("cuda",)).mlir_module()


def test_a_place_that_cannot_be_written_is_named(trained, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot write .*file"):
    exporting.export(trained, tmp_path / "file")
