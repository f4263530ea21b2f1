"""Memory is kept for the next step; what compiling took is returned."""

import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny_run

from fer_jax.training import compiled_steps
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.metrics import Metrics
from fer_jax.training.runtime import cpu


def test_memory_of_long_compilations_is_returned(monkeypatch):
  given: list[int] = []

  class Library:
    malloc_trim = given.append
    mallopt = staticmethod(lambda parameter, value: 1)

  monkeypatch.setattr(cpu, "_c_library", Library)
  cpu.configure_malloc.__wrapped__()
  jax.monitoring.record_event_duration_secs(cpu._COMPILE_EVENT, 0.01)
  assert not given
  jax.monitoring.record_event_duration_secs(cpu._COMPILE_EVENT, 1.0)
  assert given == [0]


def test_first_step_trims_twice(prepared, tiny_model, monkeypatch):
  given: list[int] = []

  class Library:
    malloc_trim = given.append

  parts = create_experiment(tiny_run.config(prepared, parallel="jit"))
  step = compiled_steps.make_train_step(parts.parallel, parts.train_step(0))
  state, metrics = parts.init_state(), Metrics.zeros()
  monkeypatch.setattr(cpu, "_c_library", Library)
  for _ in range(3):
    batch = {"index": np.arange(8)}
    state, metrics = step(state, metrics, parts.train_data, batch, parts.inputs)
  assert given == [0, 0]  # after the gradients, and after the update


_STEPS = """
import resource
from fer_jax.training.runtime import cpu
if {configure}: cpu.configure_malloc()
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
    configured: int(
      subprocess.check_output(
        [sys.executable, "-c", _STEPS.format(configure=configured)], text=True
      )
    )
    for configured in (False, True)
  }
  assert faults[True] < faults[False] / 2
