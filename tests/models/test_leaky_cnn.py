"""Tests of fer_jax.models.leaky_cnn."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from numpy.testing import assert_allclose, assert_array_equal
from quick_models import images, quick_jit

from fer_jax.errors import UserError
from fer_jax.models.leaky_cnn import LeakyCNN


def tiny(**options: Any) -> LeakyCNN:
  """Two convolutions and a few units."""
  return LeakyCNN(num_classes=3, widths=(4, 6), dense=8, **options)


def shapes_of(model: LeakyCNN, *shape: int) -> tuple[Any, Any]:
  """Logits and variables, in shape only."""
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  return jax.eval_shape(
    lambda x: model.init_with_output(jax.random.key(0), x), x
  )


def variables_of(model: LeakyCNN, *shape: int) -> Any:
  """Variables of which none is still at its initial 0 or 1."""
  rng = np.random.default_rng(1)

  def draw(leaf: Any) -> jax.Array:
    value = (
      rng.normal(size=leaf.shape) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
      if leaf.ndim > 1
      else rng.uniform(0.2, 0.9, leaf.shape)
    )
    return jnp.asarray(value, jnp.float32)

  return jax.tree.map(draw, shapes_of(model, *shape)[1])


def reference(x: Any, variables: Any, slope: float, train: bool) -> Any:
  """The network written out, without dropout."""
  params = variables["params"]

  def act(x: Any) -> Any:
    return jnp.where(x > 0, x, slope * x)

  def pool(x: Any) -> Any:
    b, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2]
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))

  for name in sorted(name for name in params if name.startswith("conv")):
    x = lax.conv_general_dilated(
      x,
      params[name]["kernel"],
      window_strides=(1, 1),
      padding=((1, 1), (1, 1)),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x = pool(act(x + params[name]["bias"][None, None, None]))
  x = x.reshape(x.shape[0], -1) @ params["fc1"]["kernel"]
  if "bn1" in params:
    norm, stats = params["bn1"], variables["batch_stats"]["bn1"]
    mean, var = (
      (x.mean(axis=0), x.var(axis=0))
      if train
      else (stats["mean"], stats["var"])
    )
    x = (x - mean[None]) / jnp.sqrt(var + 1e-5)[None]
    x = x * norm["scale"][None] + norm["bias"][None]
  else:
    x = x + params["fc1"]["bias"][None]
  return act(x) @ params["fc2"]["kernel"] + params["fc2"]["bias"][None]


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
  ("options", "slope"),
  [
    ({}, 0.01),
    ({"slope": 0.3}, 0.3),
    ({"activation": "relu", "slope": 0.3}, 0.0),
    ({"batch_norm": False, "slope": 0.3}, 0.3),
  ],
)
def test_values_are_those_of_the_network_written_out(
  options: Any, slope: float, train: bool
) -> None:
  model, x = tiny(dropout=0.0, **options), images(5, 10, 7, 1)
  variables = variables_of(model, *x.shape)

  @quick_jit
  def run(variables: Any) -> Any:
    logits, _ = model.apply(variables, x, train, mutable=["batch_stats"])
    return logits, reference(x, variables, slope, train)

  logits, expected = run(variables)
  assert np.ptp(expected) > 0.1
  assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ("classes", "channels", "count"), [(7, 3, 1_275_207), (3, 1, 1_273_603)]
)
def test_number_of_parameters(classes: int, channels: int, count: int) -> None:
  logits, variables = shapes_of(LeakyCNN(classes), 2, 48, 48, channels)
  assert (logits.shape, logits.dtype) == ((2, classes), jnp.float32)
  widths = [channels, 32, 64, 128]
  by_hand = sum(9 * i * o + o for i, o in zip(widths, widths[1:], strict=False))
  by_hand += 6 * 6 * 128 * 256 + 2 * 256 + 256 * classes + classes
  params = jax.tree.leaves(variables["params"])
  assert sum(p.size for p in params) == by_hand == count


def test_only_the_first_kernel_knows_the_channels() -> None:
  one, three = (
    shapes_of(tiny(), 2, 16, 16, channels)[1]["params"] for channels in (1, 3)
  )
  assert one["conv1"].pop("kernel").shape == (3, 3, 1, 4)
  assert three["conv1"].pop("kernel").shape == (3, 3, 3, 4)
  assert one == three


@pytest.mark.parametrize("batch_norm", [False, True])
def test_names(batch_norm: bool) -> None:
  model = LeakyCNN(num_classes=3, widths=(2, 3, 4, 5), batch_norm=batch_norm)
  _, variables = shapes_of(model, 1, 16, 16, 1)
  convs = {"conv1", "conv2", "conv3", "conv4"}
  norms = {"bn1"} if batch_norm else set()
  assert variables["params"].keys() == convs | norms | {"fc1", "fc2"}
  assert variables.get("batch_stats", {}).keys() == norms
  assert ("bias" in variables["params"]["fc1"]) is not batch_norm


@pytest.mark.parametrize("slope", [0.01, 0.9])
def test_initial_weights_keep_the_size_of_what_they_see(slope: float) -> None:
  model = LeakyCNN(num_classes=3, widths=(64, 64), dense=64, slope=slope)
  params = quick_jit(model.init)(jax.random.key(0), images(1, 4, 4, 3))
  for name in ("conv1", "conv2", "fc1"):
    kernel = np.asarray(params["params"][name]["kernel"])
    he = np.sqrt(2 / (1 + slope**2) / np.prod(kernel.shape[:-1]))
    assert_allclose(np.std(kernel), he, rtol=0.1)


def test_dropout_is_drawn_in_training_only() -> None:
  model = LeakyCNN(num_classes=3, widths=(4,), dense=512)
  x = images(4, 4, 4, 1)
  variables = variables_of(model, *x.shape)

  @functools.partial(quick_jit, static_argnames="train")
  def run(seed: Any, train: bool) -> Any:
    logits, state = model.apply(
      variables,
      x,
      train,
      mutable=["batch_stats", "intermediates"],
      rngs={"dropout": jax.random.key(seed)},
      capture_intermediates=True,
    )
    return logits, state["intermediates"]["Dropout_0"]["__call__"][0]

  (first, hidden), (second, other) = run(0, train=True), run(1, train=True)
  assert 0.45 < np.mean(hidden == 0) < 0.55
  assert np.any((hidden == 0) != (other == 0))
  assert not np.allclose(first, second, atol=1e-3)
  (first, hidden), (second, _) = run(0, train=False), run(1, train=False)
  assert np.all(hidden != 0)
  assert_array_equal(first, second)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"activation": "gelu"}, "unknown activation 'gelu'.*leaky_relu, relu"),
    ({"slope": -0.1}, r"model.slope=-0.1 must be in \[0, 1\)"),
    ({"dropout": 1.0}, r"model.dropout=1.0 must be in \[0, 1\)"),
    ({"widths": ()}, r"model.widths=\(\) must be positive integers"),
    ({"widths": (32, 0)}, r"model.widths=\(32, 0\) must be positive integers"),
    ({"dense": 0}, "model.dense=0 must be a positive integer"),
  ],
)
def test_bad_options(options: Any, message: str) -> None:
  with pytest.raises(UserError, match=message):
    LeakyCNN(num_classes=3, **options)


def test_more_pools_than_the_image_has() -> None:
  model = LeakyCNN(num_classes=3, widths=(2, 2, 2, 2))
  message = "image_size=15 must be at least 16: the model halves it 4 times"
  with pytest.raises(UserError, match=message):
    shapes_of(model, 1, 16, 15, 1)


def test_batch_norm_of_the_convolutions() -> None:
  x = images(8, 12, 12, 3)
  model = LeakyCNN(
    num_classes=3, widths=(2, 3), dropout=0.0, conv_batch_norm=True
  )
  variables = model.init(jax.random.key(0), x)
  assert set(variables["batch_stats"]) == {"bn1", "conv1_bn", "conv2_bn"}
  assert set(variables["params"]["conv1"]) == {"kernel"}
  logits, _ = model.apply(variables, x, train=True, mutable=["batch_stats"])
  # Normalization removes the scale of the images.
  scaled, _ = model.apply(
    variables, 100 * x, train=True, mutable=["batch_stats"]
  )
  np.testing.assert_allclose(logits, scaled, rtol=1e-2, atol=1e-2)
