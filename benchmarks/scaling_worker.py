"""One process of `scaling`: trains, times, and writes its parameters.

Run with a case as JSON: the keys of `depth_worker.Run`, and `process`,
`num_processes`, `address` (of the first process).
"""

import json
import sys
import time
from typing import Any

import depth_worker
import jax
import numpy as np
import workers

from fer_jax.training.runtime import cpu


class Server:
  """Handles the requests of `scaling`; see `workers.serve`."""

  def __init__(self, case: dict[str, Any]):
    self._case = case
    cpu.configure_malloc()  # as commands do
    self._run: Any = None

  def prepare(self, steps: int, parameters: str) -> dict[str, Any]:
    """Trains some steps and writes the parameters before and after them.

    Args:
      steps: number of steps.
      parameters: the file to write, by the first process.
    """
    case = self._case
    if case["num_processes"] > 1:
      jax.distributed.initialize(
        case["address"], case["num_processes"], case["process"]
      )
    self._run = depth_worker.Run(case)
    before = self._flat()
    for _ in range(steps):
      self._run.step()
    after = self._flat()
    if case["process"] == 0:
      np.savez(parameters, before=before, after=after)
    return {"mode": self._run.parallel.mode, "devices": jax.device_count()}

  def time(self, steps: int) -> float:
    """Returns the mean seconds per step."""
    jax.block_until_ready(self._run.step())
    started = time.perf_counter()
    for _ in range(steps):
      out = self._run.step()
    jax.block_until_ready(out)
    return (time.perf_counter() - started) / steps

  def _flat(self) -> np.ndarray:
    params = self._run.parallel.fetch(self._run.state.params)
    return np.concatenate([x.ravel() for x in jax.tree.leaves(params)])


if __name__ == "__main__":
  server = Server(json.loads(sys.argv[1]))
  workers.serve({"prepare": server.prepare, "time": server.time})
