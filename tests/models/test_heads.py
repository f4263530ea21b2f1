"""Tests of fer_jax.models.heads."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fer_jax.errors import UserError
from fer_jax.models.heads import JiangHead
from fer_jax.models.layers import Dropout


def features(rows: int, columns: int) -> jax.Array:
  x = np.random.default_rng(0).normal(size=(rows, columns))
  return jnp.asarray(x, jnp.float32)


def small(**options: Any) -> JiangHead:
  return JiangHead(3, widths=(16, 8), **options)


def test_layers_and_their_sizes() -> None:
  variables = jax.eval_shape(
    JiangHead(10).init, jax.random.key(0), features(1, 320)
  )
  shapes = jax.tree.map(lambda leaf: leaf.shape, variables["params"])
  norm = lambda n: {"scale": (n,), "bias": (n,)}  # noqa: E731
  assert shapes == {
    "dense1": {"kernel": (320, 2048), "bias": (2048,)},
    "bn1": norm(2048),
    "dense2": {"kernel": (2048, 1024), "bias": (1024,)},
    "bn2": norm(1024),
    "fc": {"kernel": (1024, 10), "bias": (10,)},
  }


def test_values() -> None:
  """Against the layers by hand; dropout does nothing in evaluation."""
  head, x = small(), features(4, 5)
  rng = np.random.default_rng(1)
  variables = jax.tree.map(
    lambda p: np.float32(rng.uniform(0.2, 3.0, p.shape) - (p.ndim > 1)),
    head.init(jax.random.key(0), x),
  )
  y: Any = np.asarray(x)
  for i in "12":
    dense = variables["params"][f"dense{i}"]
    norm = variables["params"][f"bn{i}"]
    stats = variables["batch_stats"][f"bn{i}"]
    y = np.clip(y @ dense["kernel"] + dense["bias"], 0, 6)
    assert np.any(y == 6)
    y = (y - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    y = y * norm["scale"] + norm["bias"]
  last = variables["params"]["fc"]
  y = y @ last["kernel"] + last["bias"]
  out: Any = head.apply(variables, x)
  assert_allclose(out, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rate", [0.5, 0.25])
def test_rates_and_places_of_the_dropouts(rate: float) -> None:
  seen: list[Any] = []

  def note(next_fn: Any, args: Any, kwargs: Any, context: Any) -> Any:
    if context.method_name == "__call__":
      module = context.module
      if isinstance(module, Dropout):
        seen.append(round(module.rate, 6))
      elif module.name and seen[-1:] != [module.name]:  # not its parent's
        seen.append(module.name)
    return next_fn(*args, **kwargs)

  with nn.intercept_methods(note):
    jax.eval_shape(small(dropout=rate).init, jax.random.key(0), features(1, 5))
  inner = round(0.6 * rate, 6)
  assert seen == [*(rate, "dense1", inner, "bn1", inner, "dense2", "bn2", "fc")]


def test_dropout_is_for_training_only() -> None:
  head, x = small(), features(16, 5)
  variables = head.init(jax.random.key(0), x)

  def train(head: JiangHead, seed: int) -> Any:
    rngs = {"dropout": jax.random.key(seed)}
    return head.apply(
      variables, x, train=True, mutable=["batch_stats"], rngs=rngs
    )[0]

  assert_array_equal(head.apply(variables, x), head.apply(variables, x))
  assert_array_equal(train(head, 1), train(head, 1))
  assert float(jnp.max(jnp.abs(train(head, 1) - train(head, 2)))) > 1e-2
  still = small(dropout=0.0)
  assert_array_equal(train(still, 1), train(still, 2))


def test_gradient_reaches_every_parameter() -> None:
  head, x = small(dropout=0.0), features(16, 5)
  variables = head.init(jax.random.key(0), x)

  def loss(params: Any) -> Any:
    state = {**variables, "params": params}
    logits, _ = head.apply(state, x, train=True, mutable=["batch_stats"])
    return jnp.sum(logits**2)

  for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(variables["params"])):
    assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


def test_dropout_out_of_range() -> None:
  with pytest.raises(UserError, match="model.dropout=1.5 must be in"):
    JiangHead(3, dropout=1.5)
