"""Initial weights computed on the host are those of the compiled function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_run
from flax import linen as nn

from fer_jax.ops import dispatch
from fer_jax.training.create_experiment import create_experiment
from fer_jax.training.runtime import host_evaluation

pytestmark = pytest.mark.usefixtures("tiny_model")


def compilations():
  """Names of the programs that are compiled from now on."""
  names = []

  def note(event, duration_secs, fun_name="", **kwargs):
    del duration_secs, kwargs
    if event == "/jax/core/compile/backend_compile_duration":
      names.append(fun_name)

  jax.monitoring.register_event_duration_secs_listener(note)
  return names


@pytest.mark.parametrize(
  "fields",
  [
    {
      "ema_decay": 0.9,
      "schedule__name": "cosine",
      "model__zero_init_residual": True,
    },
    {"model__name": "leaky_cnn", "model__dense": 300},
    {"freeze__patterns": "conv1", "optimizer__name": "sgd"},
  ],
  ids=lambda fields: next(iter(fields)),
)
def test_first_state_is_that_of_the_compiled_function(prepared, fields):
  parts = create_experiment(tiny_run.config(prepared, **fields))
  rng = jax.random.fold_in(jax.random.key(parts.config.seed), 0)
  init, shape = parts.first_train_step.init, parts.input_shape
  expected = jax.jit(lambda rng, inputs: init(rng, shape, inputs))(
    rng, parts.inputs
  )
  state = parts.init_state()
  jax.tree.map(lambda *_: None, state, expected)  # The same structure.
  for own, other in zip(
    jax.tree.leaves(state), jax.tree.leaves(expected), strict=True
  ):
    assert isinstance(own, np.ndarray) and own.dtype == other.dtype
    np.testing.assert_array_equal(own, other)


def test_arrays_of_similar_size_share_a_program():
  def init(key):
    keys = jax.random.split(key, 6)
    draw = nn.initializers.lecun_normal()
    return [draw(keys[i], (9, 100 + i)) for i in range(6)] + [
      jnp.full(20 + i, i, jnp.float32) for i in range(6)
    ]

  key = jax.random.key(1)
  traced = jax.jit(init).trace(key)
  host_evaluation.evaluate(traced, key)
  names = compilations()
  again = jax.jit(lambda key: init(key)[::-1]).trace(key)
  results = host_evaluation.evaluate(again, jax.random.key(2))
  # Only what splits the key: not one of the arrays has a program of its own.
  assert len(names) <= 2
  for own, other in zip(
    results[::-1], jax.jit(init)(jax.random.key(2)), strict=True
  ):
    np.testing.assert_array_equal(own, other)


def test_what_initializers_rarely_do_is_compiled():
  def init(key, x):
    draw = jax.random.normal(key, (3, 3))
    orthogonal = nn.initializers.orthogonal()(key, (4, 4))
    return draw, draw + 1, orthogonal, jnp.tanh(x), jax.random.uniform(key)

  args = jax.random.key(0), jnp.float32(0.5)
  own = host_evaluation.evaluate(jax.jit(init).trace(*args), *args)
  for one, other in zip(own, jax.jit(init)(*args), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("mode", ["jit", "pmap", "shard_map"])
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_shapes_are_known_before_the_state(prepared, mode, platform):
  with dispatch.tracing_for(platform):
    parts = create_experiment(tiny_run.config(prepared, parallel=mode))
    shapes = parts.placed_shapes(0)
    state = parts.place(parts.init_state(), 0)
  jax.tree.map(lambda *_: None, shapes, state)  # The same structure.
  for of, array in zip(
    jax.tree.leaves(shapes), jax.tree.leaves(state), strict=True
  ):
    assert (of.shape, of.dtype) == (array.shape, array.dtype)
