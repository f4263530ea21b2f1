"""ONNX files answer as the models do, for any number of images."""

import collections
import dataclasses
import json
import pathlib
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from fer_jax import __version__
from fer_jax.configs import default
from fer_jax.errors import UserError
from fer_jax.inference import exporting, onnx_export
from fer_jax.inference.onnx import write
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.models import create, list_models
from fer_jax.ops import dispatch

CLASS_NAMES = ("angry", "glücklich", "高兴", "sad")
TOLERANCE = 1e-5


def trained_model(name, image_shape=(48, 48, 1), **fields) -> TrainedModel:
  """A model with random weights and statistics, none at its initial value."""
  config = default.get_config()
  config.model.name = name
  config.input.image_size, config.input.channels = 48, image_shape[-1]
  for field, value in fields.items():
    section, _, key = field.partition("__")
    config[section][key] = value
  options = {k: v for k, v in config.model.items() if k != "name"}
  model = create(name, len(CLASS_NAMES), **options)
  size = config.input.image_size
  x = jnp.zeros((1, size, size, config.input.channels))
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
  return TrainedModel(
    workdir=pathlib.Path("run"),
    checkpoint="best",
    config=config,
    class_names=CLASS_NAMES,
    image_shape=image_shape,
    info={},
    model=model,
    variables=random_variables(shapes),
    batch_size=4,
  )


def random_variables(shapes):
  """Values that neither blow signals up nor let them die, in any model."""
  rng = np.random.default_rng(0)

  def value(path, leaf):
    kind, layer = path[-1].key, path[-2].key
    drawn = rng.normal(size=leaf.shape)
    if kind == "kernel":
      drawn *= np.sqrt(2 / np.prod(leaf.shape[:-1]))
    elif kind in ("scale", "var"):
      drawn = 1 + 0.1 * np.clip(drawn, -3, 3)
      if kind == "scale" and layer in ("bn2", "bn3", "project_bn"):
        drawn *= 0.5  # Shortcuts add to what comes out of these.
    else:
      drawn *= 0.1
    return drawn.astype(np.float32)

  return jax.tree_util.tree_map_with_path(value, shapes)


def images(number, image_shape):
  """Patches of various brightness; noise alone looks alike to a network."""
  height, width, channels = image_shape
  rng = np.random.default_rng(number)
  patches = rng.integers(256, size=(number, 6, 6, channels), dtype=np.uint8)
  patches = patches.repeat(-(-height // 6), 1).repeat(-(-width // 6), 2)
  brightness = rng.uniform(0.3, 1, (number, 1, 1, 1))
  return (patches[:, :height, :width] * brightness).astype(np.uint8)


def session(proto) -> onnxruntime.InferenceSession:
  return onnxruntime.InferenceSession(
    proto.SerializeToString(), providers=["CPUExecutionProvider"]
  )


def assert_same(trained, proto) -> None:
  """Compares the file with the model, whose classes must differ by image."""
  runtime = session(proto)
  stored = images(3, trained.image_shape)
  with dispatch.use_xla():  # the quickest to compile
    logits = jax.jit(trained.logits)(stored, trained.variables)
  expected = np.asarray(jax.nn.softmax(logits))
  assert np.ptp(expected, axis=0).max() > 1e-3 and expected.max() < 0.999
  for count in (1, 3):
    (got,) = runtime.run(None, {"images": stored[:count]})
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected[:count], rtol=0, atol=TOLERANCE)


def operators(proto) -> collections.Counter[str]:
  return collections.Counter(node.op_type for node in proto.graph.node)


# Networks of the same blocks as others.
ALIKE = {
  f"{kind}resnet{depth}" for kind in ("", "cbam_") for depth in (34, 101, 152)
} | {"cbam_resnet50", "bi_resnet_ir", "bi_resnet_ri"}


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name in ALIKE))
    for name in list_models()
  ],
)
def test_every_model_is_the_same_in_onnxruntime(name):
  trained = trained_model(name)
  proto = onnx_export.convert(trained)
  assert_same(trained, proto)
  found = operators(proto)
  assert found["Transpose"] <= 1  # before dense layers of whole maps
  assert not found.keys() & {"Sub", "Div", "Sqrt", "Where", "Expand"}


OPTIONS = [
  ("resnet18", {"model__stem": "small", "input__image_size": 32}),
  ("resnet18", {"model__attention": "parallel"}),
  ("resnet18", {"model__attention": "spatial", "loss__output": "sigmoid"}),
  ("mobilenet", {"model__padding": "tensorflow", "model__width": 0.25}),
  ("leaky_cnn", {"model__activation": "relu", "model__batch_norm": False}),
  ("leaky_cnn", {"model__conv_batch_norm": True, "model__widths": (8, 8)}),
]


@pytest.mark.parametrize(("name", "fields"), OPTIONS)
def test_options_are_the_same_in_onnxruntime(name, fields):
  trained = trained_model(name, **fields)
  assert_same(trained, onnx_export.convert(trained))


@pytest.mark.parametrize(
  ("stored", "channels", "size"),
  [((48, 48, 1), 3, 48), ((40, 56, 3), 1, 48), ((64, 48, 3), 3, 40)],
)
def test_preprocessing_is_in_the_file(stored, channels, size):
  trained = trained_model(
    "leaky_cnn",
    image_shape=stored,
    input__channels=channels,
    input__image_size=size,
    input__normalization="mean_std",
    input__mean=(0.4,),
    input__std=(0.2,),
  )
  assert_same(trained, onnx_export.convert(trained))


def test_a_model_trained_in_bfloat16_computes_in_float32():
  trained = trained_model("leaky_cnn")
  half = dataclasses.replace(
    trained, model=trained.model.clone(dtype=jnp.bfloat16)
  )
  assert_same(trained, onnx_export.convert(half))


def test_batch_norm_and_activations_are_folded():
  found = operators(onnx_export.convert(trained_model("resnet18")))
  assert found == {
    "Cast": 1,
    "Mul": 1,  # by 1 / 255
    "Reshape": 1,  # channels first
    "Conv": 20,
    "MaxPool": 1,
    "Relu": 17,
    "Add": 8,
    "ReduceMean": 1,
    "Gemm": 1,
    "Softmax": 1,
  }


def test_the_file_describes_itself():
  proto = onnx_export.convert(trained_model("leaky_cnn"))
  (opset,) = proto.opset_import
  assert (opset.domain, opset.version) == ("", write.OPSET)
  assert (proto.producer_name, proto.producer_version) == (
    "fer_jax",
    __version__,
  )
  metadata = session(proto).get_modelmeta().custom_metadata_map
  assert json.loads(metadata["class_names"]) == list(CLASS_NAMES)
  assert metadata["model"] == proto.graph.name == "leaky_cnn"
  assert metadata["input"] == "uint8 [n, 48, 48, 1]"
  (images_,), (output,) = proto.graph.input, proto.graph.output
  for value, shape in ((images_, ["n", 48, 48, 1]), (output, ["n", 4])):
    dims = value.type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dims] == shape
  names = {constant.name for constant in proto.graph.initializer}
  assert {"conv1/weight", "conv1/bias", "fc2/weight", "fc2/bias"} <= names


def test_it_runs_without_jax(tmp_path):
  trained = trained_model("leaky_cnn")
  (path,) = exporting.export(trained, tmp_path / "new", "onnx")
  assert path == tmp_path / "new" / "model.onnx"
  np.save(tmp_path / "images.npy", images(2, (48, 48, 1)))
  program = f"""
    import sys
    import numpy as np, onnxruntime
    session = onnxruntime.InferenceSession({str(path)!r})
    (found,) = session.run(None, {{"images": np.load("images.npy")}})
    np.save("found.npy", found)
    assert "jax" not in sys.modules and "fer_jax" not in sys.modules
  """
  command = [sys.executable, "-c", textwrap.dedent(program)]
  subprocess.run(command, cwd=tmp_path, check=True)
  expected = trained.probabilities(images(2, (48, 48, 1)))
  found = np.load(tmp_path / "found.npy")
  np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_a_second_export_replaces_the_first_and_no_other_file(tmp_path):
  trained = trained_model("leaky_cnn")
  (path,) = exporting.export(trained, tmp_path, "onnx")
  exporting.export(trained, tmp_path, "onnx")
  path.unlink()
  path.write_bytes(b"mine")
  with pytest.raises(UserError, match="was not made by fer_jax"):
    exporting.export(trained, tmp_path, "onnx")
  assert path.read_bytes() == b"mine"


def test_without_onnx_the_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "onnx", None)
  with pytest.raises(UserError, match=r"pip install 'fer_jax\[onnx\]'"):
    onnx_export.convert(trained_model("leaky_cnn"))


def test_an_unknown_format_is_named(tmp_path):
  with pytest.raises(UserError, match="unknown format 'tflite'.*onnx"):
    exporting.export(trained_model("leaky_cnn"), tmp_path, "tflite")
