"""What every library's process in `peers` does: prepare, check, time.

Run with a case as JSON: `library`, `model`, `batch_size`, `image_size`,
`dtypes`, `weights` (a file that the PyTorch process writes and the others
read), `threads`.
"""

import importlib
import json
import sys
import time
from typing import Any, Protocol

import numpy as np
import workers

NUM_CLASSES = 7
TRAINING = "training"
MODULES = {"fer_jax": "peer_jax", "flax": "peer_jax", "pytorch": "peer_torch"}


class Peer(Protocol):
  """One library's way to run a model.

  Attributes:
    variants: by name, the dtype of the compute.
    num_parameters: of the model.
    versions: of libraries and what else names the peer.
  """

  variants: dict[str, str]
  num_parameters: int
  versions: dict[str, str]

  def loss(self, images: np.ndarray, labels: np.ndarray) -> float:
    """The mean loss of a batch in evaluation, float32, from the weights."""

  def start(self, variant: str, work: str) -> None:
    """Makes ready for `step`s of this variant and kind of work."""

  def step(self) -> None:
    """Starts one training step, or classifies one batch."""

  def wait(self) -> None:
    """Waits until all steps are done."""


class Server:
  """Answers what `peers` asks; see `workers.serve`."""

  def __init__(self, case: dict[str, Any]):
    self._case = case
    self._peer: Any = None

  def prepare(self) -> dict[str, Any]:
    """Makes the model, and says what there is."""
    module = importlib.import_module(MODULES[self._case["library"]])
    peer: Peer = module.create(self._case)
    self._peer = peer
    images, labels = batch(self._case["batch_size"], self._case["image_size"])
    return {
      "variants": peer.variants,
      "num_parameters": peer.num_parameters,
      "versions": peer.versions,
      "loss": peer.loss(images, labels),
    }

  def warm_up(self, variant: str, work: str, seconds: float) -> int:
    """Compiles; returns how many steps fill a turn of so many seconds."""
    self._peer.start(variant, work)
    self._timed(1)
    once = min(self._timed(1) for _ in range(2))
    return max(1, min(1000, round(seconds / once)))

  def time(self, variant: str, work: str, steps: int) -> float:
    """Seconds of one step, the mean of some; one more goes before them."""
    self._peer.start(variant, work)
    self._timed(1)
    return self._timed(steps) / steps

  def _timed(self, steps: int) -> float:
    self._peer.wait()
    started = time.perf_counter()
    for _ in range(steps):
      self._peer.step()
    self._peer.wait()
    return time.perf_counter() - started


def batch(size: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
  """Random images from 0 to 1, float32 `[b h w 1]`, and labels."""
  rng = np.random.default_rng(0)
  images = rng.random((size, image_size, image_size, 1), dtype=np.float32)
  return images, rng.integers(NUM_CLASSES, size=size)


def images_of(work: str, batch_size: int) -> int:
  """Images a step: of training, or as "inference N" says."""
  return batch_size if work == TRAINING else int(work.split()[-1])


if __name__ == "__main__":
  server = Server(json.loads(sys.argv[1]))
  workers.serve(
    {"prepare": server.prepare, "warm_up": server.warm_up, "time": server.time}
  )
