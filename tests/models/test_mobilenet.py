"""Tests of fer_jax.models.mobilenet."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from numpy.testing import assert_allclose, assert_array_equal
from quick_models import images, quick_jit, shapes

from fer_jax.errors import UserError
from fer_jax.models import mobilenet
from fer_jax.models.mobilenet import (
  DepthwiseSeparableBlock,
  InvertedResidualBlock,
  MobileNetV1,
  MobileNetV2,
  make_divisible,
  make_layers,
)
from fer_jax.ops import dispatch

MODELS = [MobileNetV1, MobileNetV2]
EVAL = make_layers(train=False, dtype=jnp.float32, axis_name=None)


def num_parameters(model: nn.Module) -> int:
  _, variables = shapes(model, 1, 48, 48, 3)
  return sum(p.size for p in jax.tree.leaves(variables["params"]))


def randomized(variables: Any) -> Any:
  """The same tree of positive numbers; norms at their start do nothing."""
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda p: np.asarray(
      rng.uniform(0.2, 1.5, p.shape) - 0.4 * (p.ndim > 1), np.float32
    ),
    variables,
  )


def reference_conv(
  x: Any, kernel: Any, stride: int = 1, pads: Any = "VALID", groups: int = 1
) -> np.ndarray:
  return np.asarray(
    lax.conv_general_dilated(
      x,
      kernel,
      (stride, stride),
      pads,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=groups,
    )
  )


def reference_norm(
  x: Any, variables: Any, name: str, epsilon: float = 1e-5
) -> Any:
  p, s = variables["params"][name], variables["batch_stats"][name]
  return (x - s["mean"]) / np.sqrt(s["var"] + epsilon) * p["scale"] + p["bias"]


def relu6(x: Any) -> Any:
  return np.clip(x, 0, 6)


@pytest.mark.parametrize(
  ("model", "expected"),
  [
    # Keras's trained numbers with 1000 classes are 470,072 and 1,968,680.
    (MobileNetV1(1000, width=0.25), 470_072),
    (MobileNetV2(1000, width=0.5), 1_968_680),
  ],
)
def test_number_of_parameters(model: nn.Module, expected: int) -> None:
  assert num_parameters(model) == expected


@pytest.mark.parametrize("make", MODELS)
def test_names_and_widths(make: Any) -> None:
  _, variables = shapes(make(7), 1, 48, 48, 1)
  params = variables["params"]
  blocks = sorted((n for n in params if n.startswith("block")), key=len)
  if make is MobileNetV1:
    assert len(blocks) == 13
    assert set(params) - set(blocks) == {"conv1", "bn1", "fc"}
    last, width = params["block13"]["pointwise_conv"], 1024
  else:
    assert len(blocks) == 17
    assert set(params) - set(blocks) == {
      *("conv1", "bn1", "conv_last", "bn_last", "fc")
    }
    assert "expand_conv" not in params["block1"]
    assert params["block2"]["expand_conv"]["kernel"].shape == (1, 1, 16, 96)
    last, width = params["conv_last"], 1280
  assert last["kernel"].shape[-1] == width == params["fc"]["kernel"].shape[0]
  assert params["conv1"]["kernel"].shape == (3, 3, 1, 32)
  for name in blocks:
    kernel = params[name]["depthwise_conv"]["kernel"]
    assert kernel.shape == (3, 3, 1, kernel.shape[-1])
  biased = {
    path[-2].key
    for path, _ in jax.tree_util.tree_leaves_with_path(params)
    if path[-1].key == "bias"
  }
  assert not [name for name in biased if "conv" in name]


@pytest.mark.parametrize("size", [32, 45, 48])
@pytest.mark.parametrize("padding", mobilenet.PADDINGS)
@pytest.mark.parametrize("make", MODELS)
def test_logits_from_32_pixels_up(make: Any, padding: str, size: int) -> None:
  model = make(5, width=0.5, padding=padding, dtype=jnp.bfloat16)
  logits, variables = shapes(model, 2, size, size, 1)
  assert (logits.shape, logits.dtype) == ((2, 5), jnp.float32)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
    jnp.dtype(jnp.float32)
  }


@pytest.mark.parametrize("stem", ["imagenet", "small"])
@pytest.mark.parametrize("make", MODELS)
def test_feature_maps_of_48_pixels(make: Any, stem: str) -> None:
  x = jax.ShapeDtypeStruct((1, 48, 48, 1), jnp.float32)

  def parts(x: Any) -> Any:
    return make(7, stem=stem).init_with_output(
      jax.random.key(0), x, capture_intermediates=True, mutable=True
    )[1]["intermediates"]

  with dispatch.use_xla():
    shapes = jax.eval_shape(parts, x)
  sizes = [
    shapes[f"block{i + 1}"]["__call__"][0].shape[1]
    for i in range(13 if make is MobileNetV1 else 17)
  ]
  if make is MobileNetV1:
    expected = [24, 12, 12, 6, 6, *[3] * 6, 2, 2]
  else:
    expected = [24, 12, 12, 6, 6, 6, *[3] * 7, *[2] * 4]
  if stem == "small":  # Twice the size; of 3 pixels a stride of 2 leaves 2.
    expected = [3 if size == 2 else 2 * size for size in expected]
  assert sizes == expected


@pytest.mark.parametrize(
  ("padding", "size", "stride", "pads"),
  [
    ("torch", 6, 1, (1, 1)),
    ("torch", 6, 2, (1, 1)),
    ("torch", 3, 2, (1, 1)),
    ("torch", 2, 2, (1, 1)),
    ("tensorflow", 6, 1, (1, 1)),
    ("tensorflow", 6, 2, (0, 1)),
    ("tensorflow", 3, 2, (1, 1)),
    ("tensorflow", 2, 2, (0, 1)),
  ],
)
def test_padding_of_the_depthwise_convolution(
  padding: str, size: int, stride: int, pads: tuple[int, int]
) -> None:
  conv, norm = EVAL
  block = DepthwiseSeparableBlock(8, stride, conv, norm, padding=padding)
  x = images(2, size, size, 4)
  variables = quick_jit(block.init)(jax.random.key(0), x)
  _, state = quick_jit(
    functools.partial(block.apply, capture_intermediates=True)
  )(variables, x)
  (out,) = state["intermediates"]["depthwise_conv"]["__call__"]
  kernel = variables["params"]["depthwise_conv"]["kernel"]
  expected = reference_conv(x, kernel, stride, (pads, pads), groups=4)
  assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_separable_block(stride: int) -> None:
  conv, norm = EVAL
  block, x = DepthwiseSeparableBlock(8, stride, conv, norm), images(2, 6, 6, 4)
  variables = randomized(quick_jit(block.init)(jax.random.key(0), x))
  p = variables["params"]
  y: Any = reference_conv(
    x, p["depthwise_conv"]["kernel"], stride, ((1, 1), (1, 1)), groups=4
  )
  y = relu6(reference_norm(y, variables, "depthwise_bn"))
  y = reference_conv(y, p["pointwise_conv"]["kernel"])
  y = relu6(reference_norm(y, variables, "pointwise_bn"))
  assert np.any(y == 6) and np.any(y == 0)
  out: Any = quick_jit(block.apply)(variables, x)
  assert_allclose(out, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ("features", "stride", "expansion", "shortcut"),
  [
    (4, 1, 6, True),
    (4, 1, 1, True),
    (4, 2, 6, False),
    (8, 1, 3, False),
    (8, 2, 1, False),
  ],
)
def test_inverted_residual_block(
  features: int, stride: int, expansion: int, shortcut: bool
) -> None:
  conv, norm = EVAL
  x = images(2, 6, 6, 4)
  block = InvertedResidualBlock(features, stride, conv, norm, expansion)
  variables = randomized(quick_jit(block.init)(jax.random.key(0), x))
  p = variables["params"]
  assert ("expand_conv" in p) == (expansion != 1)
  y: Any = np.asarray(x)
  if expansion != 1:
    y = reference_conv(y, p["expand_conv"]["kernel"])
    y = relu6(reference_norm(y, variables, "expand_bn"))
  y = reference_conv(
    y,
    p["depthwise_conv"]["kernel"],
    stride,
    ((1, 1), (1, 1)),
    groups=4 * expansion,
  )
  y = relu6(reference_norm(y, variables, "depthwise_bn"))
  y = reference_conv(y, p["project_conv"]["kernel"])
  y = reference_norm(y, variables, "project_bn")
  assert np.any(y < 0) or np.any(y > 6)  # linear
  if shortcut:
    y = y + np.asarray(x)
  out: Any = quick_jit(block.apply)(variables, x)
  assert_allclose(out, y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("features", "start"), [(4, 0.0), (8, 1.0)])
def test_zero_init_residual_needs_a_shortcut(
  features: int, start: float
) -> None:
  x = images(2, 6, 6, 4)
  block = InvertedResidualBlock(
    features, 1, *make_layers(True, jnp.float32, None), zero_init_residual=True
  )
  out, variables = quick_jit(block.init_with_output)(jax.random.key(0), x)
  scale = variables["params"]["project_bn"]["scale"]
  assert_array_equal(scale, np.full(features, start))
  if start == 0:
    assert_array_equal(out, x)


def test_last_width_of_v2_never_shrinks() -> None:
  for width, last in [(0.5, 1280), (1.0, 1280), (1.4, 1792)]:
    _, variables = shapes(MobileNetV2(7, width=width), 1, 32, 32, 1)
    assert variables["params"]["conv_last"]["kernel"].shape[-1] == last


def test_dropout_of_each_version() -> None:
  assert (MobileNetV1(7).dropout, MobileNetV2(7).dropout) == (0.001, 0.2)


@pytest.mark.parametrize("make", MODELS)
def test_norm_epsilon_reaches_every_norm(make: Any) -> None:
  seen = []

  def note(next_fn: Any, args: Any, kwargs: Any, context: Any) -> Any:
    if isinstance(context.module, nn.BatchNorm):
      seen.append(context.module.epsilon)
    return next_fn(*args, **kwargs)

  with nn.intercept_methods(note):
    shapes(make(7, norm_epsilon=1e-3), 1, 32, 32, 1)
  assert len(seen) > 20 and set(seen) == {1e-3}


@pytest.mark.parametrize(
  ("channels", "expected"),
  [(1, 8), (11, 16), (12, 16), (16, 16), (18, 24), (19, 24), (44.8, 48)],
)
def test_make_divisible(channels: float, expected: int) -> None:
  assert make_divisible(channels) == expected


@pytest.mark.parametrize(
  ("option", "value", "message"),
  [
    ("stem", "large", "unknown stem 'large': .* imagenet, small"),
    ("padding", "keras", "unknown padding 'keras': .* tensorflow, torch"),
    ("width", 0.0, "model.width=0.0 must be above 0"),
    ("dropout", 1.0, r"model.dropout=1.0 must be in \[0, 1\)"),
    ("norm_epsilon", -1e-3, "model.norm_epsilon=-0.001 must be above 0"),
  ],
)
@pytest.mark.parametrize("make", MODELS)
def test_wrong_options(
  make: Any, option: str, value: Any, message: str
) -> None:
  with pytest.raises(UserError, match=message):
    make(7, **{option: value})
