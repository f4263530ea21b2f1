"""Batch normalization for accelerators equals Flax's, in value and gradient."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import enable_x64

from fer_jax import models
from fer_jax.ops import batch_norm, dispatch, lowerings

LAX = dispatch.Rule.all(lowerings.xla)


def outputs(module, variables, x, residual, weights):
  """Result, statistics and all gradients of a weighted sum."""

  def weighted(params, x, residual):
    y, seen = module.apply(
      {**variables, "params": params},
      x,
      residual=residual,
      mutable=["batch_stats"],
    )
    return (y * weights).sum(), (y, seen)

  # Operation by operation, each would compile by itself.
  gradients, aux = jax.jit(jax.grad(weighted, (0, 1, 2), has_aux=True))(
    variables["params"], x, residual
  )
  return jax.tree.leaves((gradients, aux))


@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("shape", [(6, 5, 4, 8), (64, 20)])
def test_equals_flax_in_float64(shape, adds, activation):
  rng = np.random.default_rng(0)
  channels = shape[-1]
  with enable_x64():
    x, residual, weights = (jnp.asarray(rng.normal(size=shape)) for _ in "123")
    variables = {
      "params": {
        "scale": jnp.asarray(rng.normal(size=channels)),
        "bias": jnp.asarray(rng.normal(size=channels)),
      },
      "batch_stats": {
        "mean": jnp.asarray(rng.normal(size=channels)),
        "var": jnp.asarray(rng.uniform(size=channels)),
      },
    }
    module = batch_norm.BatchNorm(
      use_running_average=False,
      momentum=0.9,
      activation=activation,
      dtype=jnp.float64,
    )
    args = (3 * x + 1, residual if adds else None, weights)
    with dispatch.tracing_for("gpu"):
      own = outputs(module, variables, *args)
    with dispatch.use_rule(LAX):
      reference = outputs(module, variables, *args)
    assert own[0].dtype == jnp.float64
    for one, other in zip(own, reference, strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


def test_bfloat16_maps_have_float32_statistics():
  rng = np.random.default_rng(0)
  x = jnp.asarray(100 + rng.normal(size=(32, 6, 6, 8)), jnp.bfloat16)
  module = batch_norm.BatchNorm(
    use_running_average=False, momentum=0.0, dtype=jnp.bfloat16
  )
  variables = module.init(jax.random.key(0), x)
  with dispatch.tracing_for("gpu"):
    y, seen = module.apply(variables, x, mutable=["batch_stats"])
  assert y.dtype == jnp.bfloat16
  mean = seen["batch_stats"]["mean"]
  assert mean.dtype == jnp.float32
  np.testing.assert_allclose(
    mean, np.asarray(x, np.float64).mean((0, 1, 2)), rtol=1e-6
  )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_pass_is_one_reduction(dtype):
  """Both sums in one: one per norm forward, and one backward."""
  model = models.create("resnet18", 7, stem="small", dtype=jnp.dtype(dtype))
  x = jnp.zeros((2, 16, 16, 1))
  variables = jax.eval_shape(model.init, jax.random.key(0), x)

  def loss(params, batch_stats, x):
    y, seen = model.apply(
      {"params": params, "batch_stats": batch_stats},
      x,
      train=True,
      mutable=["batch_stats"],
    )
    return y.sum(), seen

  with dispatch.tracing_for("gpu"):
    lowered = jax.jit(jax.grad(loss, has_aux=True)).lower(
      variables["params"], variables["batch_stats"], x
    )
  num_norms = sum(
    path[-1].key == "scale"
    for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])
  )
  of_both_sums = re.findall(
    r"stablehlo\.reduce\([^)]*\), \([^)]*\) ", lowered.as_text()
  )
  assert num_norms == 20
  assert len(of_both_sums) == 2 * num_norms


def test_over_devices_equals_the_whole_batch():
  rng = np.random.default_rng(0)
  x, weights = (rng.normal(size=(8, 4, 4, 16)) for _ in "12")
  whole = batch_norm.BatchNorm(use_running_average=False, activation="relu")
  variables = whole.init(jax.random.key(0), x)
  parts = whole.clone(axis_name="batch")

  def run(module, x, weights):
    def output(x):
      y, seen = module.apply(variables, x, mutable=["batch_stats"])
      return (y * weights).sum(), seen

    return jax.grad(output, has_aux=True)(x)

  with dispatch.tracing_for("gpu"):
    gradient, seen = run(whole, x, weights)
    split = [array.reshape(4, 2, 4, 4, 16) for array in (x, weights)]
    of_parts, seen_of_parts = jax.pmap(
      lambda x, weights: run(parts, x, weights), axis_name="batch"
    )(*split)
  np.testing.assert_allclose(of_parts.reshape(x.shape), gradient, atol=1e-5)
  jax.tree.map(
    lambda one, all: np.testing.assert_allclose(one[0], all, atol=1e-6),
    seen_of_parts,
    seen,
  )
