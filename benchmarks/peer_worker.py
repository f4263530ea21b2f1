"""What a process of `peers` does: prepare, check, time.

Run with a case as JSON: `library`, `variant`, `dtype`, `model`, `batch_size`,
`image_size`, `threads`, `weights` (a file, which fer_jax's process writes where
it is not there).
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
TRAINING = "training"
LATENCY = "inference 1"  # Each call is waited for; otherwise only a turn is.
CHECKED = 16  # images that losses are compared on
MODULES = {"fer_jax": "peer_jax", "flax": "peer_jax", "pytorch": "peer_torch"}


class Peer(Protocol):
  """One library's way to run a model.

  Attributes:
    num_parameters: of the model.
    step: starts one training step, or classifies one batch.
  """

  num_parameters: int
  step: Any

  def check(self, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """From the weights, in float32, without dropout, of one training step.

    Returns:
      `loss`, the batch's mean, and `gradient`, the length of the gradient of
      all parameters.
    """

  def start(self, work: str) -> None:
    """Makes ready for `step`s of a kind of work; the last kind's is let go."""

  def wait(self) -> None:
    """Waits until all steps are done."""

  def reset_peak_memory(self) -> None:
    """Has `peak_memory` start anew."""

  def peak_memory(self) -> int:
    """Bytes in use at most, on CPU those of the process."""


class Server:
  """Answers what `peers` asks; see `workers.serve`."""

  def __init__(self, case: dict[str, Any]):
    self._case = case
    self._work = ""
    self._idle = 0
    self._peer: Any = None

  def prepare(self) -> dict[str, Any]:
    """Makes the model, and says what shows that it is the same."""
    module = importlib.import_module(MODULES[self._case["library"]])
    self._idle = memory.now()
    peer: Peer = module.create(self._case)
    self._peer = peer
    images, labels = batch(CHECKED, self._case["image_size"])
    return {
      "num_parameters": peer.num_parameters,
      **peer.check(images, labels),
    }

  def warm_up(self, work: str, seconds: float) -> int:
    """Compiles; returns how many steps fill a turn of so many seconds."""
    self._work = work
    self._peer.start(work)
    self._peer.reset_peak_memory()
    self._timed(1)
    once = min(self._timed(1) for _ in range(2))
    return max(1, min(1000, round(seconds / once)))

  def time(self, steps: int) -> float:
    """Seconds of one step, the mean of some; one more goes before them."""
    self._timed(1)
    return self._timed(steps) / steps

  def memory(self) -> int:
    """Bytes at most since the warm-up; libraries do not count."""
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
    {
      "prepare": server.prepare,
      "warm_up": server.warm_up,
      "time": server.time,
      "memory": server.memory,
    }
  )
