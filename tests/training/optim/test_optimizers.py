"""Steps of each optimizer against numpy and optax, and the state's contract."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from fer_jax.configs import default
from fer_jax.errors import UserError
from fer_jax.ops import cpu_library, dispatch
from fer_jax.training.optim import adam_kernel, optimizers, schedules


def _config(name, **fields):
  config = default.get_config().optimizer
  config.update({"name": name, **fields})
  return config


def _params():
  rng = np.random.default_rng(0)

  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  return {
    "conv": {"kernel": draw(3, 3, 2, 4), "bias": draw(4)},
    "norm": {"scale": draw(4), "bias": draw(4)},
    "head": {"kernel": draw(4, 7), "bias": draw(7)},
  }


def _grads(seed):
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), _params()
  )


def _train(optimizer, num_steps=5, grads=_grads):
  params = _params()
  state = optimizer.init(params)
  update = jax.jit(optimizer.update)
  for step in range(num_steps):
    updates, state = update(grads(step), state, params)
    params = optax.apply_updates(params, updates)
  return params, state


def _assert_close(actual, expected, rtol=1e-5, atol=1e-6):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=atol),
    actual,
    expected,
  )


def _zeros(_):
  return jax.tree.map(jnp.zeros_like, _params())


@pytest.mark.parametrize(
  ("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)]
)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sgd_against_numpy(momentum, nesterov, weight_decay):
  schedule = optax.linear_schedule(0.1, 0.0, 10)
  config = _config(
    "sgd", momentum=momentum, nesterov=nesterov, weight_decay=weight_decay
  )
  params, _ = _train(optimizers.create(config, schedule))
  expected = jax.tree.map(lambda p: np.asarray(p, np.float64), _params())
  for layer, arrays in expected.items():
    for name in arrays:
      p, velocity = arrays[name], np.zeros_like(arrays[name])
      for step in range(5):
        g = np.asarray(_grads(step)[layer][name], np.float64)
        if name == "kernel":
          g = g + weight_decay * p
        velocity = momentum * velocity + g
        direction = g + momentum * velocity if nesterov else velocity
        p = p - 0.1 * (1 - step / 10) * direction
      arrays[name] = p
  _assert_close(params, expected)


@pytest.mark.skipif(
  bool(cpu_library.unavailable_reason()), reason="needs a C++ compiler"
)
@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_on_a_cpu_equals_optax(name, weight_decay):
  schedule = optax.linear_schedule(0.1, 0.0, 10)
  config = _config(name, weight_decay=weight_decay, b1=0.8, eps=1e-3)
  optimizer = optimizers.create(config, schedule)
  expected, expected_state = _train(optimizer)
  params = _params()
  assert adam_kernel.supports(config, params)
  state = optimizers.set_rate(optimizer.init(params), factor=1.0)

  @functools.partial(jax.jit, donate_argnums=(1, 2))
  def update(gradients, state, params):
    return adam_kernel.apply(
      config, schedule, jnp.float32(weight_decay), gradients, state, params
    )

  for step in range(5):
    params, state = update(_grads(step), state, params)
  _assert_close((params, state), (expected, expected_state))


def test_large_arrays_are_updated_to_the_last_element():
  config, n = _config("adam", b1=0.0, b2=0.0, eps=1e-8), 3 * 16384 + 21
  params = {"kernel": jnp.zeros(n)}
  schedule = optax.constant_schedule(0.5)
  if not adam_kernel.supports(config, params):
    pytest.skip("needs a C++ compiler")
  state = optimizers.create(config, schedule).init(params)
  gradients = {"kernel": jnp.arange(1.0, n + 1)}  # A step of 0.5 each.
  params, state = adam_kernel.apply(
    config, schedule, 0.0, gradients, state, params
  )
  _assert_close(params, {"kernel": jnp.full(n, -0.5)})
  _assert_close(state[1].mu, gradients)


@pytest.mark.parametrize(
  "fields",
  [
    {"name": "sgd"},
    {"name": "adafactor"},
    {"name": "adam", "clip_norm": 1.0},
    {"name": "adam", "accumulate_steps": 2},
  ],
)
def test_other_updates_are_left_to_optax(fields):
  assert not adam_kernel.supports(_config(**fields), _params())
  with dispatch.use_xla():
    assert not adam_kernel.supports(_config("adam"), _params())


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_against_numpy(weight_decay):
  """L2 goes through the moments, as torch.optim.Adam has it."""
  config = _config("adam", b1=0.5, b2=0.99, weight_decay=weight_decay)
  params, _ = _train(optimizers.create(config, optax.constant_schedule(0.01)))
  expected = jax.tree.map(lambda p: np.asarray(p, np.float64), _params())
  for layer, arrays in expected.items():
    for name in arrays:
      p = arrays[name]
      m, v = np.zeros_like(p), np.zeros_like(p)
      for t in range(1, 6):
        g = np.asarray(_grads(t - 1)[layer][name], np.float64)
        if name == "kernel":
          g = g + weight_decay * p
        m = 0.5 * m + 0.5 * g
        v = 0.99 * v + 0.01 * g**2
        corrected = np.sqrt(v / (1 - 0.99**t)) + 1e-8
        p = p - 0.01 * m / (1 - 0.5**t) / corrected
      arrays[name] = p
  _assert_close(params, expected, rtol=1e-4)


def test_adamw_is_that_of_optax():
  schedule = optax.linear_schedule(0.01, 0.0, 10)
  config = _config("adamw", weight_decay=0.1, b2=0.95)
  reference = optax.adamw(
    schedule, b2=0.95, weight_decay=0.1, mask=optimizers.decay_mask
  )
  actual, _ = _train(optimizers.create(config, schedule))
  _assert_close(actual, _train(reference)[0])


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_adafactor_is_that_of_optax(weight_decay):
  """But for the decay, which that one does not scale by the learning rate."""
  rate = 0.02
  reference = optax.adafactor(
    rate,
    multiply_by_parameter_scale=False,
    weight_decay_rate=rate * weight_decay or None,
    weight_decay_mask=optimizers.decay_mask,
  )
  config = _config("adafactor", weight_decay=weight_decay)
  schedule = optax.constant_schedule(rate)
  actual, _ = _train(optimizers.create(config, schedule))
  _assert_close(actual, _train(reference)[0])


def test_adafactor_factors_large_kernels():
  params = {"kernel": jnp.ones((130, 256))}
  optimizer = optimizers.create(
    _config("adafactor"), optax.constant_schedule(1e-3)
  )
  sizes = [x.size for x in jax.tree.leaves(optimizer.init(params))]
  assert max(sizes) == 256
  updates, _ = optimizer.update(params, optimizer.init(params), params)
  # Every gradient equal: a direction of 1 everywhere, times the absolute rate.
  np.testing.assert_allclose(updates["kernel"], -1e-3, rtol=1e-4)


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_decay_leaves_norms_and_biases_untouched(name):
  config = _config(name, weight_decay=0.1)
  params, _ = _train(
    optimizers.create(config, optax.constant_schedule(0.1)), 3, _zeros
  )
  for layer, arrays in _params().items():
    for key, before in arrays.items():
      after = params[layer][key]
      if key == "kernel":
        assert jnp.linalg.norm(after) < jnp.linalg.norm(before)
      else:
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_what_decoupled_decay_keeps_of_a_kernel(name):
  config = _config(name, weight_decay=0.1)
  optimizer = optimizers.create(config, optax.constant_schedule(0.5))
  params, _ = _train(optimizer, 1, _zeros)
  before = _params()["head"]["kernel"]
  kept = (1 - 0.5 * 0.1) * before
  np.testing.assert_allclose(params["head"]["kernel"], kept, rtol=1e-5)


def test_clip_norm_is_global():
  optimizer = optimizers.create(
    _config("sgd", momentum=0.0, clip_norm=1.0), optax.constant_schedule(1.0)
  )
  params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
  large = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([4.0])}
  updates, _ = optimizer.update(large, optimizer.init(params), params)
  np.testing.assert_allclose(updates["a"], [-0.6, 0.0], rtol=1e-6)
  np.testing.assert_allclose(updates["b"], [-0.8], rtol=1e-6)
  small = jax.tree.map(lambda x: x / 10, large)
  updates, _ = optimizer.update(small, optimizer.init(params), params)
  np.testing.assert_allclose(updates["b"], [-0.4], rtol=1e-6)


def test_the_gradient_is_clipped_before_decay_is_added():
  config = _config("sgd", momentum=0.0, clip_norm=1.0, weight_decay=0.5)
  optimizer = optimizers.create(config, optax.constant_schedule(1.0))
  params = {"kernel": jnp.full((1, 1), 8.0)}
  grads = {"kernel": jnp.full((1, 1), 3.0)}
  updates, _ = optimizer.update(grads, optimizer.init(params), params)
  np.testing.assert_allclose(updates["kernel"], [[-5.0]], rtol=1e-6)


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_accumulated_batches_equal_one_large_batch(name):
  """Three batches of 4 an update, against one of 12; clipped, with decay."""
  rng = np.random.default_rng(5)
  x = jnp.asarray(rng.normal(size=(24, 4)), jnp.float32)
  y = jnp.asarray(rng.normal(size=(24, 3)), jnp.float32)
  kernel = jnp.asarray(rng.normal(size=(4, 3)), jnp.float32)

  def train(batch_size, every):
    config = _config(
      name, accumulate_steps=every, clip_norm=0.5, weight_decay=0.01
    )
    schedule = schedules.create(
      default.get_config().schedule, 0.1, 24 // batch_size, 1, every
    )
    optimizer = optimizers.create(config, schedule)
    params = {"kernel": kernel}
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, x, y):
      grads = jax.grad(lambda p: jnp.mean((x @ p["kernel"] - y) ** 2))(params)
      updates, state = optimizer.update(grads, state, params)
      return optax.apply_updates(params, updates), state

    trace = []
    for start in range(0, 24, batch_size):
      rows = slice(start, start + batch_size)
      params, state = step(params, state, x[rows], y[rows])
      trace.append(params["kernel"])
    return trace

  whole, parts = train(12, 1), train(4, 3)
  np.testing.assert_array_equal(parts[0], kernel)
  np.testing.assert_array_equal(parts[1], kernel)
  np.testing.assert_allclose(parts[2], whole[0], rtol=1e-4)
  np.testing.assert_array_equal(parts[3], parts[2])
  np.testing.assert_allclose(parts[5], whole[1], rtol=1e-4)


def test_the_schedule_counts_updates_not_batches():
  optimizer = optimizers.create(
    _config("sgd", momentum=0.0, accumulate_steps=2),
    lambda count: 1.0 + count,
  )
  params = {"w": jnp.zeros(())}
  state = optimizer.init(params)
  rates, steps = [float(optimizers.learning_rate(state))], []
  for _ in range(6):
    updates, state = optimizer.update({"w": jnp.ones(())}, state, params)
    rates.append(float(optimizers.learning_rate(state)))
    steps.append(float(updates["w"]))
  assert rates == [1, 1, 1, 1, 2, 2, 3]
  assert steps == [0, -1, 0, -2, 0, -3]


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("name", optimizers.NAMES)
def test_the_factor_changes_without_compiling_and_buffers_are_donated(
  name, every
):
  optimizer = optimizers.create(
    _config(name, accumulate_steps=every), optax.constant_schedule(0.5)
  )

  compiled = 0

  def step(params, state):
    nonlocal compiled
    compiled += 1
    updates, state = optimizer.update(_grads(0), state, params)
    return optax.apply_updates(params, updates), state

  step = jax.jit(step, donate_argnums=(0, 1))
  params = _params()
  state = optimizer.init(params)
  for _ in range(2):
    donated = jax.tree.leaves(params)
    params, state = step(params, state)
    assert all(array.is_deleted() for array in donated)
  assert float(optimizers.learning_rate(state)) == 0.5
  state = optimizers.set_rate(state, factor=0.1)
  before = jax.tree.map(np.array, params)
  for _ in range(every):
    params, state = step(params, state)
  assert float(optimizers.learning_rate(state)) == pytest.approx(0.05)
  assert not np.allclose(params["head"]["kernel"], before["head"]["kernel"])
  assert compiled == 1


def test_the_factor_scales_the_update():
  optimizer = optimizers.create(
    _config("sgd", momentum=0.0), optax.constant_schedule(0.5)
  )
  params = {"w": jnp.ones(())}
  state = optimizers.set_rate(optimizer.init(params), factor=0.2)
  updates, state = optimizer.update({"w": jnp.ones(())}, state, params)
  np.testing.assert_allclose(updates["w"], -0.1, rtol=1e-6)


def test_the_factor_of_a_state_with_an_axis_of_devices():
  optimizer = optimizers.create(_config("adam"), optax.constant_schedule(0.5))
  state = jax.vmap(lambda _: optimizer.init(_params()))(jnp.arange(4))
  shapes = jax.tree.map(jnp.shape, state)
  state = optimizers.set_rate(state, factor=0.1)
  assert jax.tree.map(jnp.shape, state) == shapes
  assert optimizers.learning_rate(state).shape == (4,)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("name", optimizers.NAMES)
def test_the_state_is_saved_and_restored(name, every, tmp_path):
  config = _config(
    name, accumulate_steps=every, clip_norm=1.0, weight_decay=0.1
  )
  optimizer = optimizers.create(config, optax.constant_schedule(0.5))
  _, state = _train(optimizer, 4)
  state = optimizers.set_rate(state, factor=0.25)
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / "state", state)
    checkpointer.wait_until_finished()
    template = jax.tree.map(jnp.zeros_like, optimizer.init(_params()))
    restored = checkpointer.restore(tmp_path / "state", template)
  jax.tree.map(np.testing.assert_array_equal, restored, state)


def test_decay_mask_needs_both_name_and_rank():
  params = {
    "a": {"kernel": jnp.ones((2, 2)), "scale": jnp.ones((2, 2))},
    "b": {"kernel": jnp.ones(2)},
  }
  assert optimizers.decay_mask(params) == {
    "a": {"kernel": True, "scale": False},
    "b": {"kernel": False},
  }


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("name", "adm"),
    ("weight_decay", -0.1),
    ("clip_norm", -1.0),
    ("clip_norm", float("nan")),
    ("momentum", 1.0),
    ("b1", -0.1),
    ("b2", 1.0),
    ("eps", 0.0),
    ("accumulate_steps", 0),
  ],
)
def test_bad_fields_are_named_as_typed(field, value):
  config = _config("adam")
  config[field] = value
  with pytest.raises(UserError, match=f"optimizer.{field}") as e:
    optimizers.create(config, optax.constant_schedule(0.5))
  assert "\n" not in str(e.value)


def test_nesterov_needs_momentum():
  config = _config("sgd", momentum=0.0, nesterov=True)
  with pytest.raises(UserError, match="optimizer.nesterov=True"):
    optimizers.create(config, optax.constant_schedule(0.5))
