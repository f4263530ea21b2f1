"""The same models in PyTorch, by transformers' definitions, for `peers`."""

import contextlib
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import peer_worker

# In this process: workers of the compiler would run beside what is timed.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import safetensors.numpy
import torch
import transformers

from fer_jax.errors import UserError
from fer_jax.models.resnet import DEPTHS, BasicBlock

# Padding as ours, and torchvision's; dropout and epsilon too.
_MOBILENET = {
  "num_labels": peer_worker.NUM_CLASSES,
  "num_channels": 1,
  "tf_padding": False,
  "layer_norm_eps": 1e-5,
}
_FORMATS = {
  "contiguous": torch.contiguous_format,
  "channels_last": torch.channels_last,
}


class TorchPeer:
  """See `peer_worker.Peer`."""

  def __init__(self, case: dict[str, Any]):
    torch.set_num_threads(case["threads"])
    # As JAX does by itself where there is such a unit.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    # Every variant compiles its own programs of shared code.
    torch._dynamo.config.recompile_limit = 1000
    torch._dynamo.config.accumulated_recompile_limit = 1000
    self._case = case
    self._device = "cuda" if torch.cuda.is_available() else "cpu"
    # Initialised on the host, so that weights do not depend on the device.
    self._module = make(case["model"])
    self.variants = {
      f"{mode} {layout} {dtype}": dtype
      for dtype in case["dtypes"]
      for mode in case["modes"]
      for layout in _FORMATS
    }
    self.num_parameters = sum(p.numel() for p in self._module.parameters())
    self.versions = {
      "torch": torch.__version__,
      "transformers": transformers.__version__,
    }
    _save(self._module, case["weights"])
    self._steps: dict[tuple[str, str], Callable[[], Any]] = {}
    self._modules: dict[str, Any] = {}
    self._step: Callable[[], Any] = lambda: None

  def loss(self, images: np.ndarray, labels: np.ndarray) -> float:
    """The mean loss of a batch in evaluation."""
    self._module.eval()
    with torch.inference_mode():
      logits = self._module(torch.from_numpy(images.transpose(0, 3, 1, 2)))
      targets = torch.from_numpy(labels)
      return float(torch.nn.functional.cross_entropy(logits.logits, targets))

  def start(self, variant: str, work: str) -> None:
    """Makes ready; what compiles does so at the first step."""
    module = self._of(variant)
    module.train(work == peer_worker.TRAINING)
    key = (variant, work)
    if key not in self._steps:
      training = work == peer_worker.TRAINING
      make_step = self._training if training else self._inference
      self._steps[key] = make_step(module, variant, work)
    self._step = self._steps[key]

  def step(self) -> None:
    """Runs, or on a GPU starts, one."""
    self._step()

  def wait(self) -> None:
    """Waits for the device."""
    if self._device == "cuda":
      torch.cuda.synchronize()

  def _of(self, variant: str) -> Any:
    """A model of the variant's own; it stays, as its optimiser does."""
    if variant not in self._modules:
      mode, layout, _ = variant.split()
      module = make(self._case["model"])
      module = module.to(self._device, memory_format=_FORMATS[layout])
      if mode == "compiled":
        module = torch.compile(module, dynamic=False)
      self._modules[variant] = module
    return self._modules[variant]

  def _input(self, variant: str, size: int) -> tuple[Any, Any]:
    images, labels = peer_worker.batch(size, self._case["image_size"])
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(self._device)
    x = x.contiguous(memory_format=_FORMATS[variant.split()[1]])
    return x, torch.from_numpy(labels).to(self._device)

  def _precision(self, variant: str) -> Any:
    if self.variants[variant] == "float32":
      return contextlib.nullcontext()
    return torch.autocast(self._device, torch.bfloat16)

  def _training(self, module: Any, variant: str, work: str) -> Any:
    x, y = self._input(variant, self._case["batch_size"])
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3, fused=True)

    def step() -> None:
      optimizer.zero_grad(set_to_none=True)
      with self._precision(variant):
        logits = module(x).logits
      torch.nn.functional.cross_entropy(logits.float(), y).backward()
      optimizer.step()

    return step

  def _inference(self, module: Any, variant: str, work: str) -> Any:
    size = peer_worker.images_of(work, self._case["batch_size"])
    x, _ = self._input(variant, size)

    def step() -> None:
      with torch.inference_mode(), self._precision(variant):
        module(x)

    return step


def create(case: dict[str, Any]) -> TorchPeer:
  """The peer of a case."""
  return TorchPeer(case)


def make(model: str) -> Any:
  """The model of transformers that is ours, with random weights.

  Raises:
    UserError: there is none.
  """
  torch.manual_seed(0)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    if model == "mobilenet":
      config = transformers.MobileNetV1Config(
        **_MOBILENET, classifier_dropout_prob=0.001
      )
      return transformers.MobileNetV1ForImageClassification(config)
    if model == "mobilenet_v2":
      config = transformers.MobileNetV2Config(
        **_MOBILENET, classifier_dropout_prob=0.2
      )
      return transformers.MobileNetV2ForImageClassification(config)
    if model not in DEPTHS:
      raise UserError(f"transformers has no {model}")
    sizes, block = DEPTHS[model]
    config = transformers.ResNetConfig(
      num_channels=1,
      depths=list(sizes),
      hidden_sizes=[64 * 2**i * block.expansion for i in range(4)],
      layer_type="basic" if block is BasicBlock else "bottleneck",
      downsample_in_bottleneck=False,  # v1.5
      num_labels=peer_worker.NUM_CLASSES,
    )
    return transformers.ResNetForImageClassification(config)


def _save(module: Any, path: str) -> None:
  """Writes the weights, as those of colour images: reference files are.

  The kernel of grey images is the first channel's, the others' are zero;
  conversion to grey sums them.
  """
  tensors = {name: t.numpy().copy() for name, t in module.state_dict().items()}
  first = next(
    name for name, t in tensors.items() if t.ndim == 4 and t.shape[1] == 1
  )
  grey = tensors[first]
  tensors[first] = np.concatenate([grey, 0 * grey, 0 * grey], axis=1)
  safetensors.numpy.save_file(tensors, path)
