"""Tests of fer_jax.models.alexnet."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from numpy.testing import assert_allclose
from quick_models import images, quick_jit

from fer_jax.errors import UserError
from fer_jax.models.alexnet import AlexNet


def shapes_of(model: AlexNet, *shape: int) -> tuple[Any, Any]:
  """Logits and parameters, in shape only."""
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  logits, variables = jax.eval_shape(
    lambda x: model.init_with_output(jax.random.key(0), x), x
  )
  assert variables.keys() == {"params"}
  return logits, variables["params"]


def params_of(model: AlexNet, *shape: int) -> Any:
  """Parameters of He's size, biases not zero."""
  rng = np.random.default_rng(1)

  def draw(leaf: Any) -> jax.Array:
    scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.1
    return jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32)

  return jax.tree.map(draw, shapes_of(model, *shape)[1])


def reference(x: Any, params: Any) -> Any:
  """The network written out."""

  def conv(x: Any, layer: Any) -> Any:
    y = lax.conv_general_dilated(
      x,
      layer["kernel"],
      window_strides=(1, 1),
      padding=((1, 1), (1, 1)),
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return jnp.maximum(y + layer["bias"][None, None, None], 0)

  def pool(x: Any) -> Any:
    b, h, w, c = x.shape
    x = x[:, : h // 2 * 2, : w // 2 * 2]
    return x.reshape(b, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))

  def dense(x: Any, layer: Any) -> Any:
    return x @ layer["kernel"] + layer["bias"][None]

  x = pool(conv(x, params["conv1"]))
  x = pool(conv(x, params["conv2"]))
  x = conv(conv(x, params["conv3"]), params["conv4"])
  x = pool(conv(x, params["conv5"]))
  x = x.reshape(x.shape[0], -1)
  x = jnp.maximum(dense(x, params["fc1"]), 0)
  x = jnp.maximum(dense(x, params["fc2"]), 0)
  return dense(x, params["fc3"])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (17, 10)])
def test_values_are_those_of_the_network_written_out(
  height: int, width: int
) -> None:
  model, x = AlexNet(num_classes=7), images(2, height, width, 1)
  params = params_of(model, *x.shape)
  logits = quick_jit(model.apply)({"params": params}, x)
  expected = quick_jit(reference)(x, params)
  assert np.ptp(expected) > 0.1
  assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ("size", "channels", "count"),
  [(32, 1, 3_227_495), (32, 3, 3_228_647), (48, 3, 5_850_087)],
)
def test_number_of_parameters(size: int, channels: int, count: int) -> None:
  logits, params = shapes_of(AlexNet(7), 2, size, size, channels)
  assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
  widths = [channels, 64, 96, 192, 192, 256]
  by_hand = sum(9 * i * o + o for i, o in zip(widths, widths[1:], strict=False))
  by_hand += 256 * (size // 8) ** 2 * 512 + 512
  by_hand += 512 * 256 + 256 + 256 * 7 + 7
  assert sum(p.size for p in jax.tree.leaves(params)) == by_hand == count


def test_names() -> None:
  _, params = shapes_of(AlexNet(7), 1, 32, 32, 1)
  names = {f"conv{i}" for i in range(1, 6)} | {f"fc{i}" for i in range(1, 4)}
  assert params.keys() == names


def test_initial_weights_keep_the_size_of_what_they_see() -> None:
  params = quick_jit(AlexNet(7).init)(jax.random.key(0), images(1, 8, 8, 1))
  for name, layer in params["params"].items():
    if name != "fc3":
      kernel = np.asarray(layer["kernel"])
      he = np.sqrt(2 / np.prod(kernel.shape[:-1]))
      assert_allclose(np.std(kernel), he, rtol=0.1)
    assert not np.any(layer["bias"])


def test_dropout_is_drawn_in_training_only() -> None:
  model, x = AlexNet(num_classes=7, dropout=0.5), images(2, 8, 8, 1)
  variables = {"params": params_of(model, *x.shape)}

  @functools.partial(quick_jit, static_argnames="train")
  def run(seed: Any, train: bool) -> Any:
    rngs = {"dropout": jax.random.key(seed)}
    logits, state = model.apply(
      variables, x, train, rngs=rngs, capture_intermediates=True
    )
    return logits, state["intermediates"]["Dropout_0"]["__call__"][0]

  plain = quick_jit(AlexNet(num_classes=7).apply)(variables, x)
  evaluated, _ = run(0, train=False)
  assert_allclose(evaluated, plain, rtol=1e-5, atol=1e-5)
  (first, hidden), (second, _) = run(0, train=True), run(1, train=True)
  assert not np.allclose(first, plain, atol=1e-3)
  assert not np.allclose(first, second, atol=1e-3)
  # Half are zero by the ReLU and half of the rest are dropped.
  assert 0.65 < np.mean(hidden == 0) < 0.85


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_bad_dropout(dropout: float) -> None:
  with pytest.raises(UserError, match=f"model.dropout={dropout} must be in"):
    AlexNet(num_classes=7, dropout=dropout)


def test_too_small_an_image() -> None:
  with pytest.raises(UserError, match="input.image_size=7 must be at least 8"):
    shapes_of(AlexNet(7), 1, 7, 9, 1)
