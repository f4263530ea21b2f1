"""Our models against the libraries their reference weights are from.

Random weights go from the library's own model through a file into ours; then
both give the same. The libraries are no dependency: what is not installed is
skipped.
"""

import contextlib
import functools
import importlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from fer_jax.errors import UserError
from fer_jax.models import create
from fer_jax.models.resnet import DEPTHS, BasicBlock
from fer_jax.ops import dispatch
from fer_jax.pretrained import convert_file

CLASSES = 11
TORCH_MODELS = [
  *(("hugging_face", name) for name in DEPTHS),
  *(("torchvision", name) for name in ("resnet18", "resnet50")),
  ("timm", "resnet34"),
  ("hugging_face", "mobilenet"),
  ("timm", "mobilenet"),
  ("hugging_face", "mobilenet_v2"),
  ("timm", "mobilenet_v2"),
  ("torchvision", "mobilenet_v2"),
]
# All depths, and both kinds of padding.
TRAINED_MODELS = [
  *(("hugging_face", name) for name in DEPTHS),
  ("hugging_face", "mobilenet"),
  ("timm", "mobilenet"),
  ("hugging_face", "mobilenet_v2"),
  ("torchvision", "mobilenet_v2"),
]


def library(name: str) -> Any:
  """Imports a library, or skips the test."""
  os.environ.setdefault("KERAS_BACKEND", "numpy")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
      return importlib.import_module(name)
    except (ImportError, RuntimeError) as e:  # RuntimeError: of another build
      pytest.skip(f"{name} cannot be imported: {e}")


def make(source: str, model: str) -> Any:
  """The library's model, with every number of its norms random."""
  torch = library("torch")
  torch.manual_seed(0)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    module = MAKERS[source](model)
  for part in module.modules():
    if isinstance(part, torch.nn.BatchNorm2d):
      # Small, so that 50 blocks' sums stay of the order of 1.
      part.weight.data.uniform_(0.2, 0.8)
      part.bias.data.normal_(0.0, 0.2)
      part.running_mean.normal_(0.0, 0.2)
      part.running_var.uniform_(0.5, 1.5)
      part.momentum = 0.1  # the MobileNets of transformers have 0.997 here
    elif isinstance(part, torch.nn.Dropout):
      part.p = 0.0
  return module


def _hugging_face(model: str) -> Any:
  transformers = library("transformers")
  if model == "mobilenet":
    config = transformers.MobileNetV1Config(num_labels=CLASSES)
    return transformers.MobileNetV1ForImageClassification(config)
  if model == "mobilenet_v2":
    config = transformers.MobileNetV2Config(num_labels=CLASSES)
    return transformers.MobileNetV2ForImageClassification(config)
  sizes, block = DEPTHS[model]
  basic = block is BasicBlock
  config = transformers.ResNetConfig(
    depths=list(sizes),
    hidden_sizes=[64 * 2**i * block.expansion for i in range(4)],
    layer_type="basic" if basic else "bottleneck",
    downsample_in_bottleneck=False,  # v1.5
    num_labels=CLASSES,
  )
  return transformers.ResNetForImageClassification(config)


def _torchvision(model: str) -> Any:
  return library("torchvision").models.get_model(model, num_classes=CLASSES)


def _timm(model: str) -> Any:
  names = {"mobilenet": "mobilenetv1_100", "mobilenet_v2": "mobilenetv2_100"}
  timm = library("timm")
  return timm.create_model(names.get(model, model), num_classes=CLASSES)


MAKERS = {
  "hugging_face": _hugging_face,
  "torchvision": _torchvision,
  "timm": _timm,
}


def convert(module: Any, model: str, folder: Path) -> tuple[Any, Any]:
  """What the module's weights, stored as a file, become."""
  path = folder / "weights.safetensors"
  safetensors.numpy.save_file(
    {name: t.numpy().copy() for name, t in module.state_dict().items()}, path
  )
  return convert_file(path, model)


def logits_of(output: Any) -> Any:
  return getattr(output, "logits", output).detach().numpy()


def images(batch: int, size: int) -> np.ndarray:
  """Normal pixels, NHWC."""
  shape = (batch, size, size, 3)
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def nchw(x: np.ndarray) -> Any:
  return library("torch").from_numpy(x.transpose(0, 3, 1, 2).copy())


def ours(model: str, info: Any, variables: Any, x: Any, train: bool) -> Any:
  """Our logits and, in training, updated statistics.

  By XLA's own convolutions, the quickest to compile; tests of `ops` show that
  the others equal them.
  """
  options = dict(info["options"])
  if train and model.startswith("mobilenet"):
    options["dropout"] = 0.0
  if train:
    options["dtype"] = jnp.float64
  module = create(model, num_classes=CLASSES, **options)
  apply = functools.partial(
    module.apply, train=train, mutable=["batch_stats"] if train else False
  )
  quick_jit = jax.jit(
    lambda variables, x: apply(variables, x),
    compiler_options={"xla_backend_optimization_level": 0},
  )
  with dispatch.use_xla():
    return quick_jit(variables, jnp.asarray(x))


def largest_difference(a: Any, b: Any) -> float:
  return float(np.max(np.abs(np.asarray(a) - np.asarray(b))))


@contextlib.contextmanager
def biased_variances(module: Any) -> Iterator[None]:
  """Makes one training forward's running variances what Flax has.

  torch averages unbiased variances, of n - 1, Flax those of n; here each
  norm's is scaled back after the forward.
  """
  torch = library("torch")
  norms = [p for p in module.modules() if isinstance(p, torch.nn.BatchNorm2d)]
  before = [norm.running_var.clone() for norm in norms]
  sizes: dict[Any, int] = {}

  def note(norm: Any, inputs: Any) -> None:
    sizes[norm] = inputs[0].numel() // norm.num_features

  hooks = [norm.register_forward_pre_hook(note) for norm in norms]
  yield
  for hook, norm, old in zip(hooks, norms, before, strict=True):
    hook.remove()
    kept = (1 - norm.momentum) * old
    n = sizes[norm]
    norm.running_var.copy_(kept + (norm.running_var - kept) * (n - 1) / n)


@pytest.mark.parametrize(("source", "model"), TORCH_MODELS)
def test_logits(source: str, model: str, tmp_path: Path) -> None:
  module = make(source, model).eval()
  variables, info = convert(module, model, tmp_path)
  named_as_torchvision = source == "timm" and model in DEPTHS
  assert info["scheme"] == ("torchvision" if named_as_torchvision else source)
  assert info["num_classes"] == CLASSES
  x = images(2, 64)
  with library("torch").no_grad():
    expected = logits_of(module(nchw(x)))
  actual = ours(model, info, variables, x, train=False)
  assert np.std(expected) > 0.05
  difference = largest_difference(actual, expected)
  print(f"largest difference {difference:.1e}")  # pytest -s shows it
  assert difference < 1e-4


@pytest.mark.parametrize(("source", "model"), TRAINED_MODELS)
def test_running_statistics(source: str, model: str, tmp_path: Path) -> None:
  """After one forward in training, in float64.

  The last maps are of 2x2 pixels, so a norm is over few numbers, and in
  float32 the order of summation alone makes 1e-3 of difference in 152 layers.
  """
  module = make(source, model).train()
  variables, info = convert(module, model, tmp_path)
  # XLA's depthwise convolutions are slow in float64.
  x = images(4, 64 if model in DEPTHS else 32)
  module.double()
  with library("torch").no_grad(), biased_variances(module):
    expected = logits_of(module(nchw(x).double()))
  after, _ = convert(module, model, tmp_path)
  with jax.enable_x64(True):
    actual, state = ours(
      model, info, jax.tree.map(np.float64, variables), x, train=True
    )
  changes = jax.tree.map(
    largest_difference, after["batch_stats"], variables["batch_stats"]
  )
  assert min(jax.tree.leaves(changes)) > 1e-4
  differences = jax.tree.map(
    largest_difference, state["batch_stats"], after["batch_stats"]
  )
  difference = max(jax.tree.leaves(differences))
  print(f"largest difference {difference:.1e}")  # pytest -s shows it
  assert difference < 1e-6  # files are float32
  assert largest_difference(actual, expected) < 1e-5  # and so are logits


@pytest.mark.parametrize("ending", [".weights.h5", ".h5"])
@pytest.mark.parametrize(
  ("name", "model"),
  [("MobileNet", "mobilenet"), ("MobileNetV2", "mobilenet_v2")],
)
def test_keras(name: str, model: str, ending: str, tmp_path: Path) -> None:
  reference = _keras(name)
  path = _save(reference, tmp_path / f"{name}{ending}")
  variables, info = convert_file(path, model)
  assert (info["format"], info["scheme"]) == ("keras", "keras")
  x = images(2, 64)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    with jax.numpy_rank_promotion("allow"):
      expected = np.asarray(reference(x, training=False))
  actual = ours(model, info, variables, x, train=False)
  assert np.std(expected) > 0.05
  difference = largest_difference(actual, expected)
  print(f"largest difference {difference:.1e}")  # pytest -s shows it
  assert difference < 1e-4


@pytest.mark.parametrize("ending", [".weights.h5", ".h5"])
def test_a_keras_resnet_is_refused(ending: str, tmp_path: Path) -> None:
  path = _save(_keras("ResNet50"), tmp_path / f"resnet{ending}")
  with pytest.raises(UserError, match="v1, whose stride .* torchvision"):
    convert_file(path, "resnet50")


def _keras(name: str) -> Any:
  """A model of keras.applications with every number random."""
  keras, rng = library("keras"), np.random.default_rng(0)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    model = getattr(keras.applications, name)(
      weights=None,
      input_shape=(64, 64, 3),
      classes=CLASSES,
      classifier_activation=None,
    )
  for weight in model.weights:
    if len(weight.shape) > 1:
      continue
    low = 0.5 if weight.name in ("gamma", "moving_variance") else -0.2
    weight.assign(rng.uniform(low, low + 0.5, weight.shape))
  return model


def _save(model: Any, path: Path) -> Path:
  """Stores weights alone, or the whole model in the older layout."""
  library("h5py")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    if path.name.endswith(".weights.h5"):
      model.save_weights(path)
    else:
      model.save(path)
  return path
