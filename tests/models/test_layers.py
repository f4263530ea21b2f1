"""Tests of fer_jax.models.layers."""

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fer_jax.models import layers


class FlaxNetwork(nn.Module):
  """Two dropouts of Flax."""

  rate: float

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies both."""
    for _ in range(2):
      x = nn.Dropout(self.rate, deterministic=False)(x)
    return x


class Network(nn.Module):
  """Two dropouts of ours."""

  rate: float
  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies both."""
    for _ in range(2):
      x = layers.Dropout(self.rate, self.axis_name)(x, train=True)
    return x


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_dropout_equals_that_of_flax(rate: float, dtype: Any) -> None:
  x = jnp.arange(1.0, 601.0, dtype=dtype).reshape(20, 30)
  rngs = {"dropout": jax.random.key(5)}
  ours = Network(rate).apply({}, x, rngs=rngs)
  assert_array_equal(ours, FlaxNetwork(rate).apply({}, x, rngs=rngs))
  dropped = float(np.mean(np.asarray(ours) == 0))
  assert abs(dropped - (1 - (1 - rate) ** 2)) < 0.06


@pytest.mark.parametrize("shape", [(8, 5), (8, 3, 4)])
def test_the_masks_of_four_devices_are_those_of_one(shape: Any) -> None:
  x = jnp.ones(shape)
  rngs = {"dropout": jax.random.key(5)}
  expected = Network(0.5).apply({}, x, rngs=rngs)
  out = jax.pmap(
    lambda x: Network(0.5, "batch").apply({}, x, rngs=rngs), axis_name="batch"
  )(x.reshape(4, 2, *shape[1:]))
  assert_array_equal(out.reshape(shape), expected)


def test_evaluation_needs_no_key() -> None:
  x = jnp.ones((2, 3))
  out = layers.Dropout(0.5).apply({}, x, train=False)
  assert_array_equal(out, x)


def test_stochastic_depth_drops_whole_examples() -> None:
  x = jnp.arange(1.0, 64 * 12 + 1).reshape(64, 2, 3, 2)
  rngs = {"dropout": jax.random.key(5)}
  out = np.asarray(layers.StochasticDepth(0.5).apply({}, x, rngs=rngs))
  kept = out[:, 0, 0, 0] != 0
  assert 20 < np.sum(kept) < 44
  assert_array_equal(out[kept], np.asarray(x)[kept] / 0.5)
  assert_array_equal(out[~kept], np.zeros_like(out[~kept]))

  def part(x: jax.Array) -> jax.Array:
    module = layers.StochasticDepth(0.5, "batch")
    return cast(jax.Array, module.apply({}, x, rngs=rngs))

  parts = jax.pmap(part, axis_name="batch")(x.reshape(4, 16, 2, 3, 2))
  assert_array_equal(np.asarray(parts).reshape(x.shape), out)
