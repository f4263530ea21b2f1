"""Memory is kept for the next step; what compiling took is given back."""

import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny_run

from fer_jax.training import data_parallel, train_setup
from fer_jax.training.metrics import Sums
from fer_jax.training.runtime import malloc


def test_memory_of_long_compilations_is_given_back(monkeypatch):
  given: list[int] = []

  class Library:
    malloc_trim = given.append
    mallopt = staticmethod(lambda parameter, value: 1)

  monkeypatch.setattr(malloc, "_c_library", Library)
  malloc.settle.__wrapped__()
  jax.monitoring.record_event_duration_secs(malloc._COMPILED, 0.01)
  assert not given
  jax.monitoring.record_event_duration_secs(malloc._COMPILED, 1.0)
  assert given == [0]


def test_the_first_step_gives_back_what_it_took(tmp_path, monkeypatch):
  given: list[int] = []

  class Library:
    malloc_trim = given.append

  tiny_run.register(monkeypatch)
  parts = train_setup.build(tiny_run.config(tmp_path, parallel="jit"))
  call = data_parallel.training_call.__wrapped__(
    parts.spread, parts.steps, False
  )
  state, sums = parts.init_state(), Sums.zeros()
  data = parts.resident(parts.dataset.split("train"))
  monkeypatch.setattr(malloc, "_c_library", Library)
  for _ in range(3):
    state, sums = call(state, sums, data, {"index": np.arange(8)}, parts.inputs)
  assert given == [0, 0]  # after the gradients, and after the update


_STEPS = """
import resource
from fer_jax.training import allocation
if {settle}: allocation.settle()
import jax, jax.numpy as jnp
step = jax.jit(lambda x: (x @ x.T).sum() + (x @ x.T).max())
x = jnp.ones((4096, 64))
for _ in range(10): step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20): step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_steps_use_the_same_memory():
  """Each needs 64 MB for itself."""
  faults = {
    settle: int(
      subprocess.check_output(
        [sys.executable, "-c", _STEPS.format(settle=settle)], text=True
      )
    )
    for settle in (False, True)
  }
  assert faults[True] < faults[False] / 2
