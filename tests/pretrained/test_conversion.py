"""Tests of fer_jax.pretrained: files, names, layouts and what is stored."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax.traverse_util import flatten_dict
from numpy.testing import assert_array_equal

from fer_jax import pretrained
from fer_jax.errors import UserError
from fer_jax.models import create
from fer_jax.ops import convolution, dispatch
from fer_jax.pretrained import conversion, convert_file
from fer_jax.pretrained.schemes import SCHEMES, Scheme

Tensors = dict[str, np.ndarray]
PAIRS = [(m, s) for m, schemes in SCHEMES.items() for s in schemes]
CLASSES = 5


def scheme_of(model: str, name: str) -> Scheme:
  return next(s for s in SCHEMES[model] if s.name == name)


def random_tensors(model: str, scheme: str) -> Tensors:
  """The tensors of a model's reference file, as small integers."""
  rng = np.random.default_rng(0)
  theirs = conversion.reference_tensors(
    model, scheme_of(model, scheme), CLASSES
  )
  return {
    tensor.name: rng.integers(-4, 5, tensor.shape).astype(np.float32)
    for tensor in theirs.values()
  }


@pytest.fixture(scope="module")
def tensors() -> Tensors:
  """Tensors of a ResNet-18 in torchvision."""
  return random_tensors("resnet18", "torchvision")


def write(path: Path, tensors: Tensors) -> Path:
  safetensors.numpy.save_file(tensors, path)
  return path


def message(path: Path, model: str = "resnet18", **options: Any) -> str:
  """The error for a file, which must be one line."""
  with pytest.raises(UserError) as refusal:
    convert_file(path, model, **options)
  assert "\n" not in str(refusal.value)
  return str(refusal.value)


def assert_same(a: Any, b: Any) -> None:
  jax.tree.map(assert_array_equal, a, b)  # raises where the trees differ


@pytest.mark.parametrize(
  ("model", "scheme"), PAIRS, ids=[f"{m}-{s.name}" for m, s in PAIRS]
)
def test_every_layer_has_one_name(model: str, scheme: Scheme) -> None:
  theirs = conversion.reference_tensors(model, scheme, CLASSES)
  layers = {"/".join(path.split("/")[1:-1]) for path in theirs}
  assert layers == set(scheme.layers())
  names = [place.name for place in theirs.values()]
  assert len(set(names)) == len(names)


def test_names_of_torchvision() -> None:
  theirs = conversion.reference_tensors(
    "resnet50", scheme_of("resnet50", "torchvision"), 1000
  )
  picked = {path: place.name for path, place in theirs.items()}
  assert len(picked) == 267  # as torchvision counts, but its step counters
  assert picked["params/conv1/kernel"] == "conv1.weight"
  assert picked["params/layer1_0/bn3/bias"] == "layer1.0.bn3.bias"
  assert (
    picked["batch_stats/layer4_0/downsample_bn/var"]
    == "layer4.0.downsample.1.running_var"
  )
  assert theirs["params/layer1_0/conv1/kernel"].shape == (64, 64, 1, 1)
  assert theirs["params/fc/kernel"].shape == (1000, 2048)


def test_layouts(tensors: Tensors, tmp_path: Path) -> None:
  path = write(tmp_path / "a.safetensors", tensors)
  variables, info = convert_file(path, "resnet18")
  params, stats = variables["params"], variables["batch_stats"]
  conv = tensors["layer2.0.conv1.weight"]
  assert conv.shape == (128, 64, 3, 3)
  assert_array_equal(
    params["layer2_0"]["conv1"]["kernel"][1, 2, 3, :], conv[:, 3, 1, 2]
  )
  assert_array_equal(params["fc"]["kernel"], tensors["fc.weight"].T)
  for part, name in ("scale", "weight"), ("bias", "bias"):
    assert_array_equal(params["bn1"][part], tensors[f"bn1.{name}"])
  for part in ("mean", "var"):
    assert_array_equal(stats["bn1"][part], tensors[f"bn1.running_{part}"])
  assert info["file"] == "a.safetensors"
  assert (info["format"], info["scheme"]) == ("safetensors", "torchvision")
  assert info["num_classes"] == CLASSES
  assert info["mean"] == [0.485, 0.456, 0.406]


def test_the_tree_is_that_of_the_model(
  tensors: Tensors, tmp_path: Path
) -> None:
  path = write(tmp_path / "a.safetensors", tensors)
  variables, _ = convert_file(path, "resnet18")
  module = create("resnet18", num_classes=CLASSES)
  x = jax.ShapeDtypeStruct((1, 48, 48, 3), jnp.float32)
  with dispatch.use_xla():
    expected = jax.eval_shape(module.init, jax.random.key(0), x)
  described = jax.tree.map(lambda a: (a.shape, str(a.dtype)), variables)
  assert described == jax.tree.map(lambda a: (a.shape, str(a.dtype)), expected)


def test_counters_and_half_precision(tensors: Tensors, tmp_path: Path) -> None:
  halved = {name: t.astype(jnp.bfloat16) for name, t in tensors.items()}
  halved["bn1.num_batches_tracked"] = np.array(3)
  a, _ = convert_file(write(tmp_path / "a.safetensors", tensors), "resnet18")
  b, _ = convert_file(write(tmp_path / "b.safetensors", halved), "resnet18")
  assert_same(a, b)  # small integers are exact in bfloat16


def test_all_that_does_not_fit_is_listed(
  tensors: Tensors, tmp_path: Path
) -> None:
  wrong = dict(tensors)
  del wrong["layer1.0.conv1.weight"], wrong["bn1.running_var"]
  wrong["layer9.weight"] = np.zeros(2, np.float32)
  wrong["conv1.weight"] = np.zeros((64, 1, 7, 7), np.float32)
  wrong["bn1.bias"] = np.full(64, np.nan, np.float32)
  text = message(write(tmp_path / "a.safetensors", wrong))
  assert "2 missing: bn1.running_var; layer1.0.conv1.weight." in text
  assert "1 unexpected: layer9.weight." in text
  assert "conv1.weight [64, 1, 7, 7] instead of [64, 3, 7, 7]." in text
  assert text.endswith("1 not finite: bn1.bias")


def test_the_weights_of_another_model(tensors: Tensors, tmp_path: Path) -> None:
  text = message(write(tmp_path / "a.safetensors", tensors), "resnet34")
  assert "its names are those of resnet18" in text
  assert "layer3.5.conv2.weight" in text
  strange = {"encoder.w": np.zeros(2, np.float32)}
  text = message(write(tmp_path / "b.safetensors", strange))
  assert "not a resnet18 of torchvision, hugging_face" in text
  assert "encoder.w" in text
  text = message(tmp_path / "a.safetensors", "alexnet")
  assert "choose one of mobilenet, mobilenet_v2, resnet101" in text


def test_one_channel_is_three_equal_ones(
  tensors: Tensors, tmp_path: Path
) -> None:
  path = write(tmp_path / "a.safetensors", tensors)
  color, _ = convert_file(path, "resnet18")
  gray, info = convert_file(path, "resnet18", channels=1)
  kernels = [v["params"]["conv1"].pop("kernel") for v in (color, gray)]
  assert_same(color, gray)
  assert [k.shape for k in kernels] == [(7, 7, 3, 64), (7, 7, 1, 64)]
  assert (info["channels"], info["mean"], info["std"]) == (1, [0.449], [0.226])
  # Sums of integers are exact in any order.
  pixels = np.random.default_rng(1).integers(-9, 10, (2, 12, 12, 1))
  x = jnp.asarray(pixels, jnp.float32)
  in_color = jnp.repeat(x, 3, axis=-1)
  of_color = convolution.convolve(
    in_color, kernels[0], (2, 2), ((3, 3), (3, 3))
  )
  of_gray = convolution.convolve(x, kernels[1], (2, 2), ((3, 3), (3, 3)))
  assert float(jnp.std(of_gray)) > 1
  assert_array_equal(of_color, of_gray)
  assert "channels=2 must be 1 or 3" in message(path, channels=2)


def test_the_classifier(tensors: Tensors, tmp_path: Path) -> None:
  path = write(tmp_path / "a.safetensors", tensors)
  whole, info = convert_file(path, "resnet18", num_classes=CLASSES)
  assert whole["params"]["fc"]["kernel"].shape == (512, CLASSES)
  dropped, info = convert_file(path, "resnet18", num_classes=7)
  assert info["num_classes"] is None
  del whole["params"]["fc"]
  assert_same(dropped, whole)
  # A file without one, as those for fine-tuning are.
  headless = {n: t for n, t in tensors.items() if not n.startswith("fc.")}
  path = write(tmp_path / "b.safetensors", headless)
  variables, info = convert_file(path, "resnet18")
  assert info["num_classes"] is None
  assert_same(variables, whole)
  half = {**headless, "fc.bias": tensors["fc.bias"]}
  path = write(tmp_path / "c.safetensors", half)
  assert "1 missing: fc.weight" in message(path)
  assert "num_classes=0 must" in message(path, num_classes=0)


def test_a_folder_is_written_and_read(tensors: Tensors, tmp_path: Path) -> None:
  path = write(tmp_path / "a.safetensors", tensors)
  variables, info = convert_file(path, "resnet18", num_classes=7)
  folder = pretrained.save(tmp_path / "new" / "w", variables, info)
  assert {p.name for p in folder.iterdir()} == {
    "source.json",
    "weights.safetensors",
  }
  assert [p.name for p in folder.parent.iterdir()] == ["w"]
  stored = safetensors.numpy.load_file(folder / "weights.safetensors")
  assert set(stored) == set(flatten_dict(variables, sep="/"))
  again, source = pretrained.load(folder)
  assert_same(again, variables)
  assert source == info
  written = json.loads((folder / "source.json").read_text())
  assert len(written.pop("weights_sha256")) == 64 and written == info
  with pytest.raises(UserError, match="w exists already"):
    pretrained.save(folder, variables, info)
  content = bytearray((folder / "weights.safetensors").read_bytes())
  content[-1] ^= 1
  (folder / "weights.safetensors").write_bytes(content)
  with pytest.raises(UserError, match="wrong checksum.*; remove that folder"):
    pretrained.load(folder)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
  with pytest.raises(UserError, match="nowhere has no converted weights"):
    pretrained.load(tmp_path / "nowhere")
  (tmp_path / "source.json").write_text("{")
  with pytest.raises(UserError, match="convert or download them"):
    pretrained.load(tmp_path)
  (tmp_path / "source.json").write_text("{}")
  (tmp_path / "weights.safetensors").write_bytes(b"\x09")
  with pytest.raises(UserError, match="convert or download them"):
    pretrained.load(tmp_path)


def _zipped(**members: bytes) -> bytes:
  content = io.BytesIO()
  with zipfile.ZipFile(content, "w") as archive:
    for name, data in members.items():
      archive.writestr(name, data)
  return content.getvalue()


@pytest.mark.parametrize(
  ("content", "words"),
  [
    (b"", "not a file of weights"),
    (b"<!DOCTYPE html><title>Not found</title>", "not a file of weights"),
    (pickle.dumps({"conv1.weight": [1.0]}), "is a pickle"),
    (pickle.dumps({"conv1.weight": [1.0]}, protocol=2), "is a pickle"),
    (b"PK\x03\x04 and no more", "damaged"),
    (_zipped(**{"arr_0.npy": b""}), "not a file of weights"),
    (_zipped(**{"model.weights.h5": b""}), "use its model.weights.h5"),
    (b"\x10\0\0\0\0\0\0\0{" + b"?" * 20, "damaged"),
  ],
)
def test_files_of_other_kinds(
  content: bytes, words: str, tmp_path: Path
) -> None:
  path = tmp_path / "a.pth"
  path.write_bytes(content)
  text = message(path)
  assert words in text and str(path) in text


@pytest.mark.parametrize(
  ("dtype", "size", "shown"),
  [("F8_E4M3", 2, "F8_E4M3"), ("F4", 1, "F4"), ("C64", 16, "complex64")],
)
def test_dtypes_that_are_not_read(
  dtype: str, size: int, shown: str, tmp_path: Path
) -> None:
  info = {"dtype": dtype, "shape": [2], "data_offsets": [0, size]}
  header = json.dumps({"conv1.weight": info}).encode().ljust(0x80)
  path = tmp_path / "a.safetensors"
  path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
  expected = f"conv1.weight of the unsupported dtype {shown}: convert it to"
  assert expected in message(path)


def test_complex_tensors_of_torch_are_refused(tmp_path: Path) -> None:
  torch = pytest.importorskip("torch")
  torch.save({"w": torch.ones(2, dtype=torch.complex64)}, tmp_path / "a.pth")
  assert "unsupported dtype complex64" in message(tmp_path / "a.pth")


def test_a_file_cut_short(tensors: Tensors, tmp_path: Path) -> None:
  path = write(tmp_path / "a.safetensors", tensors)
  path.write_bytes(path.read_bytes()[:-9])
  assert "damaged" in message(path)
  assert "No such file" in message(tmp_path / "none.pth")
  assert "directory" in message(tmp_path)


def test_a_header_whose_length_looks_like_a_pickle(tmp_path: Path) -> None:
  """A safetensors file may begin with the byte that pickles begin with."""
  header = b'{"__metadata__":{}}'.ljust(0x80)
  path = tmp_path / "a.safetensors"
  path.write_bytes(len(header).to_bytes(8, "little") + header)
  assert "first tensors are none" in message(path)


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(
  "nested", ["", "state_dict", "model_state_dict", "model"]
)
def test_torch(
  new: bool, nested: str, tensors: Tensors, tmp_path: Path
) -> None:
  torch = pytest.importorskip("torch")
  state = {name: torch.from_numpy(t) for name, t in tensors.items()}
  if nested:  # as training scripts on several devices store it
    state = {f"module.{name}": t for name, t in state.items()}
    state = {nested: state, "epoch": 3}
  path = tmp_path / "a.pth"
  torch.save(state, path, _use_new_zipfile_serialization=new)
  variables, info = convert_file(path, "resnet18")
  assert (info["format"], info["scheme"]) == ("torch", "torchvision")
  expected, _ = convert_file(write(tmp_path / "b", tensors), "resnet18")
  assert_same(variables, expected)


def test_parameters_of_torch(tensors: Tensors, tmp_path: Path) -> None:
  """A state_dict with keep_vars=True has them."""
  torch = pytest.importorskip("torch")
  state = {
    name: torch.nn.Parameter(torch.from_numpy(t), t.dtype == np.float32)
    for name, t in tensors.items()
  }
  torch.save(state, tmp_path / "a.pth")
  variables, _ = convert_file(tmp_path / "a.pth", "resnet18")
  expected, _ = convert_file(write(tmp_path / "b", tensors), "resnet18")
  assert_same(variables, expected)


class Evil:
  """Runs code where it is unpickled."""

  def __reduce__(self) -> Any:
    return (exit, (3,))


@pytest.mark.parametrize("new", [True, False])
def test_torch_files_with_code_are_refused(new: bool, tmp_path: Path) -> None:
  torch = pytest.importorskip("torch")
  path = tmp_path / "a.pth"
  torch.save({"w": Evil()}, path, _use_new_zipfile_serialization=new)
  assert "contains more than tensors" in message(path)
  torch.save({"epoch": 3}, path, _use_new_zipfile_serialization=new)
  assert "no state_dict" in message(path)
  for odd in ({1: torch.ones(2)}, {"w": torch.ones(9).to_sparse()}):
    torch.save(odd, path, _use_new_zipfile_serialization=new)
    assert "no state_dict" in message(path)
  torch.save({"w": torch.ones(99)}, path, _use_new_zipfile_serialization=new)
  path.write_bytes(path.read_bytes()[:-40])
  assert "damaged" in message(path)


@pytest.mark.parametrize(
  ("module", "content"),
  [
    ("torch", _zipped(**{"a/data.pkl": b""})),
    ("h5py", b"\x89HDF\r\n\x1a\n"),
  ],
)
def test_a_library_that_is_missing(
  module: str,
  content: bytes,
  tmp_path: Path,
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  monkeypatch.setitem(sys.modules, module, None)  # importing it fails
  path = tmp_path / "a"
  path.write_bytes(content)
  text = message(path)
  assert f"needs {module}: pip install" in text


@pytest.mark.parametrize("model", ["mobilenet", "mobilenet_v2"])
@pytest.mark.parametrize("named", [True, False])
def test_keras(model: str, named: bool, tmp_path: Path) -> None:
  h5py = pytest.importorskip("h5py")
  tensors = random_tensors(model, "keras")
  stored = dict(tensors)
  if model == "mobilenet":  # Keras' classifier is a 1x1 convolution
    kernel = stored["conv_preds/kernel"]
    stored["conv_preds/kernel"] = kernel[None, None]
  path = tmp_path / "a.h5"
  with h5py.File(path, "w") as f:
    (_write_named if named else _write_ordered)(f, stored)
  variables, info = convert_file(path, model)
  assert (info["format"], info["scheme"]) == ("keras", "keras")
  assert info["num_classes"] == CLASSES
  assert info["options"] == {"padding": "tensorflow", "norm_epsilon": 1e-3}
  assert (info["mean"], info["std"]) == ([0.5] * 3, [0.5] * 3)
  params = variables["params"]
  conv, norm = {
    "mobilenet": ("conv_dw_2", "conv_dw_2_bn"),
    "mobilenet_v2": ("block_1_depthwise", "block_1_depthwise_BN"),
  }[model]
  depthwise = tensors[f"{conv}/kernel"]
  assert depthwise.shape[2:] in [(64, 1), (96, 1)]
  assert_array_equal(
    params["block2"]["depthwise_conv"]["kernel"][:, :, 0, :],
    depthwise[:, :, :, 0],
  )
  assert_array_equal(
    params["block2"]["depthwise_bn"]["bias"], tensors[f"{norm}/beta"]
  )
  path.write_bytes(path.read_bytes()[:5000])
  assert "damaged" in message(path, model)


def _layers(tensors: Tensors) -> dict[str, Tensors]:
  layers: dict[str, Tensors] = {}
  for name, tensor in tensors.items():
    layer, part = name.split("/")
    layers.setdefault(layer, {})[part] = tensor
  return layers


def _write_named(f: Any, tensors: Tensors) -> None:
  """As Keras 2 stores a whole model."""
  f = f.create_group("model_weights")
  layers = _layers(tensors)
  if "predictions" in layers:
    layers["Logits"] = layers.pop("predictions")
  f.attrs["layer_names"] = [name.encode() for name in layers]
  for layer, parts in layers.items():
    group = f.create_group(layer)
    depthwise = "_dw_" in layer or layer.endswith("depthwise")
    names = {
      part: f"{layer}/depthwise_{part}:0"
      if depthwise and part == "kernel"
      else f"{layer}/{part}:0"
      for part in parts
    }
    group.attrs["weight_names"] = [name.encode() for name in names.values()]
    for part, tensor in parts.items():
      group[names[part]] = tensor


def _write_ordered(f: Any, tensors: Tensors) -> None:
  """As Keras 3 stores weights."""
  order = ("kernel", "gamma", "beta", "bias", "moving_mean", "moving_variance")
  for i, (layer, parts) in enumerate(_layers(tensors).items()):
    group = f.create_group(f"layers/layer_{i}/vars")
    group.attrs["name"] = layer
    for k, part in enumerate(sorted(parts, key=order.index)):
      group[str(k)] = parts[part]
  f.create_group("layers/dropout/seed_generator/vars")["0"] = np.zeros(2)


def test_keras_resnets_are_refused(tmp_path: Path) -> None:
  h5py = pytest.importorskip("h5py")
  path = tmp_path / "a.h5"
  with h5py.File(path, "w") as f:
    _write_named(f, {"conv1_conv/kernel": np.zeros((7, 7, 3, 64))})
  assert "v1, whose stride is in a block's first 1x1" in message(path)


def test_the_command(tensors: Tensors, tmp_path: Path) -> None:
  path = write(tmp_path / "a.safetensors", tensors)

  def run(*flags: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "fer_jax.pretrained.convert", *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)

  out = tmp_path / "w"
  flags = ["--model=resnet18", f"--out={out}", "--channels=1"]
  done = run(str(path), *flags, "--num_classes=7")
  assert (done.returncode, done.stderr) == (0, "")
  variables, info = pretrained.load(out)
  assert variables["params"]["conv1"]["kernel"].shape == (7, 7, 1, 64)
  assert f"sha256 {info['sha256']}" in done.stdout
  assert "no classifier" in done.stdout
  again = run(str(path), *flags)
  assert (again.returncode, again.stdout) == (1, "")
  assert again.stderr == f"error: {out} exists already: choose a new folder\n"
