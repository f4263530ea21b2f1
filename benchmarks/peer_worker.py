"""The process of one variant in `peers`: prepares, checks and times it.

Run with a case as JSON: `library`, `variant`, `dtype`, `model`, `batch_size`,
`image_size`, `threads`, `weights` (a file that the process of fer_jax writes if
it does not exist).
"""

import importlib
import json
import sys
import time
from typing import Any, Protocol

import memory
import numpy as np
import workers

NUM_CLASSES = 7
NUM_IMAGES = 1024  # of the dataset on the device, in training
TRAINING = "training"
LATENCY = "inference 1"  # Waits for each call, else only for each repetition.
CHECKED = 16  # number of images on which losses are compared
MODULES = {"fer_jax": "peer_jax", "flax": "peer_jax", "pytorch": "peer_torch"}


class Peer(Protocol):
  """A model in one library.

  Attributes:
    num_parameters: number of parameters.
    platform: "cpu", "gpu" or "tpu".
    device: name of the device, "cpu" for a processor.
    step: starts one training step, or the inference of one batch.
  """

  num_parameters: int
  platform: str
  device: str
  step: Any

  def check(self, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Computes a training step in float32, without dropout.

    Returns:
      `loss`, the mean over the batch, and `gradient`, the norm of the gradient
      of all parameters.
    """

  def start(self, work: str) -> None:
    """Prepares `step` for a kind of work, and frees the previous kind's."""

  def wait(self) -> None:
    """Waits until all steps are done."""

  def reset_peak_memory(self) -> None:
    """Resets `peak_memory`."""

  def peak_memory(self) -> int:
    """Returns the peak memory in bytes; on CPU that of the process."""


class Server:
  """Handles the requests of `peers`; see `workers.serve`."""

  def __init__(self, case: dict[str, Any]):
    self._case = case
    self._work = ""
    self._idle = 0
    self._peer: Any = None

  def prepare(self) -> dict[str, Any]:
    """Creates the model; returns what `peer_variants.check_equal` takes."""
    module = importlib.import_module(MODULES[self._case["library"]])
    self._idle = memory.now()
    peer: Peer = module.create(self._case)
    self._peer = peer
    images, labels = batch(CHECKED, self._case["image_size"])
    return {
      "num_parameters": peer.num_parameters,
      "platform": peer.platform,
      "device": peer.device,
      **peer.check(images, labels),
    }

  def warm_up(self, work: str, seconds: float) -> tuple[float, int]:
    """Compiles.

    Returns:
      The seconds until the first step is done, preparation included; the number
      of steps in a repetition of a length.
    """
    self._work = work
    started = time.perf_counter()
    self._peer.start(work)
    self._peer.reset_peak_memory()
    self._timed(1)
    first = time.perf_counter() - started
    once = min(self._timed(1) for _ in range(2))
    return first, max(1, min(1000, round(seconds / once)))

  def time(self, steps: int) -> float:
    """Returns the mean seconds per step, after one step of warm-up."""
    self._timed(1)
    return self._timed(steps) / steps

  def memory(self) -> int:
    """Returns the peak memory since the warm-up, without the libraries'."""
    return max(0, self._peer.peak_memory() - self._idle)

  def _timed(self, steps: int) -> float:
    peer: Peer = self._peer
    each = self._work == LATENCY
    peer.wait()
    started = time.perf_counter()
    for _ in range(steps):
      peer.step()
      if each:
        peer.wait()
    peer.wait()
    return time.perf_counter() - started


def batch(size: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns random images in 0..1, float32 `[b h w 1]`, and labels."""
  rng = np.random.default_rng(0)
  images = rng.random((size, image_size, image_size, 1), dtype=np.float32)
  return images, rng.integers(NUM_CLASSES, size=size)


def training_data(
  image_size: int, batch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns a dataset and the indices of a batch, as in `depth_worker.Run`.

  Returns:
    uint8 images `[n h w 1]`, labels `[n]`, indices `[b]`.
  """
  rng = np.random.default_rng(0)
  shape = (NUM_IMAGES, image_size, image_size, 1)
  images = rng.integers(256, size=shape, dtype=np.uint8)
  labels = rng.integers(NUM_CLASSES, size=NUM_IMAGES)
  return images, labels, rng.integers(NUM_IMAGES, size=batch_size)


def images_of(work: str, batch_size: int) -> int:
  """Returns the images per step: `batch_size`, or N of "inference N"."""
  return batch_size if work == TRAINING else int(work.split()[-1])


if __name__ == "__main__":
  server = Server(json.loads(sys.argv[1]))
  workers.serve(
    {
      "prepare": server.prepare,
      "warm_up": server.warm_up,
      "time": server.time,
      "memory": server.memory,
    }
  )
