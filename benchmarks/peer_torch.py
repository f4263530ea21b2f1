"""One variant of a model in PyTorch, for `peers`."""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import memory
import numpy as np
import peer_worker

# Compile in this process: compiler workers would disturb the timings.
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import safetensors.numpy
import torch
import torch_models

from fer_jax import errors

FORMATS = {
  "contiguous": torch.contiguous_format,
  "channels_last": torch.channels_last,
}


class TorchPeer:
  """See `peer_worker.Peer`; a variant is, e.g., "graph channels_last"."""

  def __init__(self, case: dict[str, Any]):
    torch.set_num_threads(case["threads"])
    # TensorFloat-32 where available, as in JAX by default.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    self._case = case
    self._device = "cuda" if torch.cuda.is_available() else "cpu"
    on_gpu = self._device == "cuda"
    self.platform = "gpu" if on_gpu else "cpu"
    self.device = torch.cuda.get_device_name() if on_gpu else "cpu"
    self._mode, layout = case["variant"].split()
    if self._mode in ("graph", "reduce-overhead") and self._device == "cpu":
      raise errors.UserError(
        f"PyTorch {torch.__version__} finds no CUDA device, which mode"
        f" {self._mode} needs"
      )
    self._format = FORMATS[layout]
    self._module = torch_models.make(
      case["model"], peer_worker.NUM_CLASSES, case["image_size"]
    )
    self._load()
    self._module.to(self._device, memory_format=self._format)
    self.num_parameters = sum(p.numel() for p in self._module.parameters())
    self.step: Callable[[], Any] = lambda: None

  def check(self, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns the loss of a batch and the norm of its gradient."""
    self._module.train()
    for module in self._module.modules():
      if isinstance(module, torch.nn.Dropout):
        module.eval()
    loss = torch.nn.functional.cross_entropy(
      self._module(self._images(images)), self._put(labels)
    )
    loss.backward()
    squares = sum(
      float(p.grad.double().square().sum()) for p in self._module.parameters()
    )
    self._module.zero_grad()
    self._load()  # Running statistics have changed.
    return {"loss": loss.item(), "gradient": squares**0.5}

  def start(self, work: str) -> None:
    """Prepares the steps; compilation happens at the first one."""
    torch.compiler.reset()
    module = self._module
    module.train(work == peer_worker.TRAINING)
    if self._mode == "compiled":
      module = torch.compile(module, dynamic=False)
    elif self._mode == "reduce-overhead":
      module = torch.compile(module, dynamic=False, mode="reduce-overhead")
    size = self._case["image_size"]
    if work == peer_worker.TRAINING:
      data = peer_worker.training_data(size, self._case["batch_size"])
      self.train_on(*data, module)
      return
    number = peer_worker.images_of(work, self._case["batch_size"])
    images, _ = peer_worker.batch(number, size)
    self._set_step(self._inference(module, self._images(images)))

  def train_on(
    self,
    images: np.ndarray,
    labels: np.ndarray,
    index: np.ndarray,
    module: Any = None,
  ) -> None:
    """Prepares steps on a batch of a dataset that is on the device.

    Args:
      images: uint8 `[n h w 1]`.
      labels: `[n]`.
      index: of the batch's images.
      module: compiled; None for the module itself.
    """
    arrays = map(self._put, (images, labels, index))
    self._set_step(self._training(module or self._module, *arrays))

  def parameters(self) -> list[np.ndarray]:
    """Returns copies of the parameters."""
    params = self._module.parameters()
    return [p.detach().cpu().numpy().copy() for p in params]

  def _set_step(self, step: Callable[[], Any]) -> None:
    self.step = _captured(step) if self._mode == "graph" else step

  def wait(self) -> None:
    """Waits for the device."""
    if self._device == "cuda":
      torch.cuda.synchronize()

  def reset_peak_memory(self) -> None:
    """Resets the peak."""
    if self._device == "cuda":
      torch.cuda.reset_peak_memory_stats()
    else:
      memory.reset_peak()

  def peak_memory(self) -> int:
    """Returns the peak memory in bytes."""
    if self._device == "cuda":
      return torch.cuda.max_memory_allocated()
    return memory.peak()

  def _load(self) -> None:
    weights = safetensors.numpy.load_file(self._case["weights"])
    torch_models.load(self._module, weights)

  def _images(self, images: np.ndarray) -> Any:
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(self._device)
    return x.contiguous(memory_format=self._format)

  def _put(self, array: np.ndarray) -> Any:
    return torch.from_numpy(array).to(self._device)

  def _precision(self) -> Any:
    if self._case["dtype"] == "float32":
      return contextlib.nullcontext()
    return torch.autocast(self._device, torch.bfloat16)

  def _training(
    self, module: Any, images: Any, labels: Any, index: Any
  ) -> Callable[[], Any]:
    """Returns a step on a batch of the dataset, by index as ours."""
    optimizer = torch.optim.Adam(
      module.parameters(),
      lr=1e-3,
      fused=True,
      capturable=self._device == "cuda",
    )

    def step() -> None:
      optimizer.zero_grad(set_to_none=True)
      x = self.gathered(images, index)
      with self._precision():
        logits = module(x)
      loss = torch.nn.functional.cross_entropy(logits.float(), labels[index])
      loss.backward()
      optimizer.step()

    return step

  def gathered(self, images: Any, index: Any) -> Any:
    """Returns images `[b 1 h w]` in 0..1, in this variant's layout.

    Args:
      images: uint8 `[n h w 1]`.
      index: of the batch's images.
    """
    x = images[index].permute(0, 3, 1, 2).float() / 255
    return x.contiguous(memory_format=self._format)

  def _inference(self, module: Any, x: Any) -> Callable[[], Any]:
    def step() -> None:
      with torch.inference_mode(), self._precision():
        module(x)

    return step


def _captured(step: Callable[[], Any]) -> Callable[[], Any]:
  """Returns the replay of a step as one CUDA graph.

  As PyTorch's notes on CUDA graphs ask: a few steps on another stream first,
  which allocate the optimizer's state and choose cuDNN's algorithms.
  """
  stream = torch.cuda.Stream()
  stream.wait_stream(torch.cuda.current_stream())
  with torch.cuda.stream(stream):
    for _ in range(3):
      step()
  torch.cuda.current_stream().wait_stream(stream)
  graph = torch.cuda.CUDAGraph()
  with torch.cuda.graph(graph):
    step()
  return graph.replay


def create(case: dict[str, Any]) -> TorchPeer:
  """Returns the peer of a case."""
  return TorchPeer(case)
