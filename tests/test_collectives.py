"""What a program sums over devices is counted from its text."""

import collectives
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P


def test_every_sum_over_devices_counts_with_its_bytes():
  mesh = Mesh(jax.devices()[:4], ("batch",))

  def step(x):
    total = jax.lax.psum(x, "batch")
    pair = jax.lax.psum((x[0], x.astype(jnp.bfloat16)), "batch")
    return total, pair, jax.lax.pmean(x.sum(), "batch"), 2 * x.sum()

  mapped = jax.shard_map(
    step, mesh=mesh, in_specs=P("batch"), out_specs=P(), check_vma=False
  )
  lowered = jax.jit(mapped).lower(jnp.zeros((8, 3)))
  sizes = collectives.reduced(lowered.as_text())
  assert sorted(sizes) == [4, 2 * 2 * 3, 4 * 3, 4 * 2 * 3]
