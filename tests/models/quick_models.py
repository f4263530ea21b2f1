"""Shapes and calls of models in tests: of random pixels, compiled quickly."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fer_jax.ops import dispatch

# Everything in tests runs once: what counts is the time to compile it.
quick_jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)


def images(*shape: int) -> jax.Array:
  """Normal pixels."""
  x = np.random.default_rng(0).normal(size=shape)
  return jnp.asarray(x, jnp.float32)


def shapes(model: nn.Module, *shape: int) -> Any:
  """Logits and variables in shape only."""
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  with dispatch.use_xla():
    return jax.eval_shape(
      lambda x: model.init_with_output(jax.random.key(0), x), x
    )
