"""The profiler's trace."""

import jax
import jax.numpy as jnp
from jax.profiler import ProfileData

from fer_jax.training.runtime.profiler import Trace


def test_holds_the_operations_of_its_calls_and_no_others(tmp_path):
  @jax.jit
  def train(x):
    return jax.lax.fori_loop(0, 20, lambda _, x: jnp.tanh(x @ x), x)

  trace, x = Trace(tmp_path, enabled=True), jnp.ones((256, 256))
  for _ in range(Trace.LAST + 5):  # The host does not wait for the device.
    trace.step(x)
    x = train(x)
  trace.close()
  (path,) = tmp_path.rglob("*.xplane.pb")
  loops = [
    event.name
    for plane in ProfileData.from_file(str(path)).planes
    for line in plane.lines
    for event in line.events
    if event.name.startswith("while")
  ]
  assert len(loops) == Trace.LAST - Trace.FIRST
