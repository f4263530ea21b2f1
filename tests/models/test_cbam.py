"""Tests of fer_jax.models.cbam, alone and in a ResNet."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from numpy.testing import assert_allclose
from quick_models import images, quick_jit

from fer_jax.errors import UserError
from fer_jax.models import create, resnet
from fer_jax.models.cbam import ARRANGEMENTS, CBAM
from fer_jax.models.resnet import BasicBlock, BottleneckBlock, ResNet
from fer_jax.ops import convolution, dispatch
from fer_jax.ops.batch_norm import BatchNorm


def factories(train: bool = False, dtype: Any = None) -> dict[str, Any]:
  """What a ResNet makes its layers with."""
  conv = functools.partial(convolution.Conv, use_bias=False, dtype=dtype)
  norm = functools.partial(
    BatchNorm,
    use_running_average=not train,
    momentum=0.9,
    epsilon=1e-5,
    dtype=dtype,
  )
  return {"conv": conv, "norm": norm}


def module(train: bool = False, dtype: Any = None, **options: Any) -> CBAM:
  """A CBAM as in a ResNet."""
  return CBAM(**factories(train, dtype), **options)


def variables_of(model: nn.Module, x: Any) -> Any:
  """Variables of which none is still at its initial 0 or 1."""
  with dispatch.use_xla():
    tree = jax.eval_shape(model.init, jax.random.key(0), x)
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda leaf: (
      jnp.asarray(rng.uniform(0.2, 0.9, leaf.shape), jnp.float32)
      * rng.choice([-1.0, 1.0], leaf.shape) ** (leaf.ndim > 1)
    ),
    tree,
  )


# Woo et al. 2018, section 3, in plain numpy and float64.


def sigmoid(z: np.ndarray) -> np.ndarray:
  return 1 / (1 + np.exp(-z))


def channel_map(x: np.ndarray, params: Any) -> np.ndarray:
  """Equation 2: sigmoid(W1 W0 F_avg + W1 W0 F_max), with the code's biases."""

  def mlp(pooled: np.ndarray) -> np.ndarray:
    w0, w1 = params["fc1"], params["fc2"]
    hidden = np.maximum(pooled @ w0["kernel"] + w0["bias"], 0)
    return hidden @ w1["kernel"] + w1["bias"]

  z = mlp(x.mean(axis=(1, 2))) + mlp(x.max(axis=(1, 2)))
  return sigmoid(z)[:, None, None, :]


def spatial_map(
  x: np.ndarray, params: Any, stats: Any, train: bool
) -> np.ndarray:
  """Equation 3: sigmoid(f([F_max; F_avg])), f a convolution and a norm."""
  kernel = params["conv"]["kernel"][..., 0]
  k, (b, h, w, _) = kernel.shape[0], x.shape
  pooled = np.stack([x.max(axis=-1), x.mean(axis=-1)], axis=-1)
  pad = (k // 2, k // 2)
  padded = np.pad(pooled, ((0, 0), pad, pad, (0, 0)))
  z = np.zeros((b, h, w))
  for i in range(h):
    for j in range(w):
      window = padded[:, i : i + k, j : j + k]
      z[:, i, j] = np.sum(window * kernel, axis=(1, 2, 3))
  mean, var = (
    (z.mean(), z.var()) if train else (stats["bn"]["mean"], stats["bn"]["var"])
  )
  z = (z - mean) / np.sqrt(var + 1e-5)
  return sigmoid(z * params["bn"]["scale"] + params["bn"]["bias"])[..., None]


def reference(
  x: Any, variables: Any, arrangement: str, train: bool
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """The weighted maps, and the weights by their names."""
  x, variables = jax.tree.map(
    lambda leaf: np.asarray(leaf, np.float64), (x, variables)
  )
  params, stats = variables["params"], variables.get("batch_stats")
  maps = {}
  y = x
  if arrangement != "spatial":
    maps["channel_map"] = channel_map(x, params)
    y = x * maps["channel_map"]
  if arrangement != "channel":
    seen = x if arrangement == "parallel" else y
    maps["spatial_map"] = spatial_map(seen, params, stats, train)
    y = y * maps["spatial_map"]
  return y, maps


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_values_are_those_of_the_formulas(
  arrangement: str, train: bool
) -> None:
  model = module(train, arrangement=arrangement, reduction=4, kernel_size=5)
  x = images(3, 6, 4, 12)
  variables = variables_of(model, x)
  # A small MLP: saturated weights would hide what they are made of.
  fc2 = variables["params"].get("fc2", {})
  fc2.update(jax.tree.map(lambda p: 0.1 * p, fc2))
  out, state = model.apply(
    variables, x, mutable=["intermediates", "batch_stats"]
  )
  expected, maps = reference(x, variables, arrangement, train)
  assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
  sown = {name: calls[0] for name, calls in state["intermediates"].items()}
  sown.pop("bn", None)
  assert sown.keys() == maps.keys()
  for name, value in maps.items():
    assert np.ptp(value) > 0.05
    assert_allclose(sown[name], value, rtol=1e-5, atol=1e-5)


def test_maps_are_kept_only_where_asked_for() -> None:
  model, x = module(), images(2, 4, 5, 8)

  def run(x: Any) -> Any:
    variables = model.init(jax.random.key(0), x)
    return variables, model.apply(variables, x, mutable=["intermediates"])[1]

  variables, state = jax.eval_shape(run, x)
  assert variables.keys() == {"params", "batch_stats"}
  shapes = {k: v[0].shape for k, v in state["intermediates"].items()}
  assert shapes == {"channel_map": (2, 1, 1, 8), "spatial_map": (2, 4, 5, 1)}


def test_the_spatial_map_starts_as_one_half() -> None:
  model, x = module(arrangement="spatial"), images(2, 9, 9, 8)
  out, _ = model.init_with_output(jax.random.key(0), x)
  assert_allclose(out, 0.5 * x, rtol=1e-6)


def test_running_statistics_move_by_one_hundredth() -> None:
  model, x = module(train=True, arrangement="spatial"), images(2, 9, 9, 8)
  variables = model.init(jax.random.key(0), x)
  variables["batch_stats"]["bn"]["mean"] = jnp.full(1, 1e6)
  _, state = model.apply(variables, x, mutable=["batch_stats"])
  assert_allclose(state["batch_stats"]["bn"]["mean"], [0.99e6], rtol=1e-5)


@pytest.mark.parametrize(
  ("channels", "reduction", "hidden"), [(64, 16, 4), (8, 16, 1), (24, 5, 4)]
)
def test_parameters(channels: int, reduction: int, hidden: int) -> None:
  x = jax.ShapeDtypeStruct((2, 7, 7, channels), jnp.float32)
  model = module(reduction=reduction)
  params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
  assert jax.tree.map(lambda leaf: leaf.shape, params) == {
    "fc1": {"kernel": (channels, hidden), "bias": (hidden,)},
    "fc2": {"kernel": (hidden, channels), "bias": (channels,)},
    "conv": {"kernel": (7, 7, 2, 1)},
    "bn": {"scale": (1,), "bias": (1,)},
  }


@pytest.mark.parametrize(
  ("arrangement", "parts"),
  [("channel", {"fc1", "fc2"}), ("spatial", {"conv", "bn"})],
)
def test_one_map_alone_has_no_parameters_of_the_other(
  arrangement: str, parts: set[str]
) -> None:
  variables = variables_of(module(arrangement=arrangement), images(1, 7, 7, 16))
  assert variables["params"].keys() == parts


@pytest.mark.parametrize("train", [False, True])
def test_bfloat16_is_for_the_compute_only(train: bool) -> None:
  model = module(train, dtype=jnp.bfloat16)
  x = images(2, 7, 7, 16).astype(jnp.bfloat16)

  def run(x: jax.Array) -> Any:
    variables = model.init(jax.random.key(0), x)
    out, state = model.apply(
      variables, x, mutable=["intermediates", "batch_stats"]
    )
    return variables, out, state

  variables, out, state = jax.eval_shape(run, x)
  for leaf in jax.tree.leaves((variables, state["batch_stats"])):
    assert leaf.dtype == jnp.float32
  maps = state["intermediates"]
  for leaf in (out, *maps["channel_map"], *maps["spatial_map"]):
    assert leaf.dtype == jnp.bfloat16


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"attention": "serial"}, "unknown attention 'serial'.*none, parallel"),
    ({"attention_reduction": 0}, "model.attention_reduction=0 must be a pos"),
    (
      {"attention_kernel_size": 4},
      "model.attention_kernel_size=4 must be a p",
    ),
    ({"attention_kernel_size": -1}, "model.attention_kernel_size=-1 must be"),
  ],
)
def test_bad_options_of_a_resnet(options: Any, message: str) -> None:
  with pytest.raises(UserError, match=message):
    create("resnet18", num_classes=7, **options)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"arrangement": "none"}, "unknown attention 'none'"),
    ({"reduction": 2.5}, "reduction=2.5 must be a positive integer"),
    ({"kernel_size": 2}, "kernel_size=2 must be a positive odd integer"),
  ],
)
def test_bad_options_of_the_module(options: Any, message: str) -> None:
  with pytest.raises(UserError, match=message):
    module(**options)


def tiny(block: resnet.Block = BasicBlock, **options: Any) -> ResNet:
  """Two stages of one block."""
  return ResNet((1, 1), block, num_classes=7, **options)


@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock])
def test_attention_adds_to_the_tree_of_a_resnet(block: resnet.Block) -> None:
  x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
  plain, attentive = (
    jax.eval_shape(tiny(block, **options).init, jax.random.key(0), x)
    for options in ({}, {"attention": "sequential"})
  )
  for part in attentive.values():
    assert "cbam" in part["layer1_0"] and "cbam" in part["layer2_0"]
    for name in part:
      part[name].pop("cbam", None)
  assert attentive == plain


@pytest.mark.parametrize(
  ("block", "last"), [(BasicBlock, "bn2"), (BottleneckBlock, "bn3")]
)
def test_attention_weights_the_branch_before_the_addition(
  block: resnet.Block, last: str
) -> None:
  attention = functools.partial(CBAM, **factories(), arrangement="parallel")
  model = block(4, stride=2, **factories(), attention=attention)
  x = images(2, 10, 8, 3)
  variables = variables_of(model, x)

  @quick_jit
  def run(variables: Any) -> Any:
    _, state = model.apply(
      variables, x, capture_intermediates=True, mutable=["intermediates"]
    )
    return state["intermediates"]

  parts = run(variables)
  out, normed, weighted, shortcut = (
    part["__call__"][0]
    for part in (parts, parts[last], parts["cbam"], parts["downsample_bn"])
  )
  own = {name: tree["cbam"] for name, tree in variables.items()}
  expected, _ = reference(normed, own, "parallel", train=False)
  assert_allclose(weighted, expected, rtol=1e-5, atol=1e-5)
  assert np.any(np.abs(weighted) > 0.1)
  assert_allclose(out, np.maximum(weighted + shortcut, 0), rtol=1e-6)


def test_options_reach_every_block() -> None:
  model: Any = create(
    "resnet18",
    num_classes=7,
    attention="parallel",
    attention_reduction=8,
    attention_kernel_size=3,
  )
  x = jax.ShapeDtypeStruct((1, 32, 32, 1), jnp.float32)
  with dispatch.use_xla():
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
  blocks = {k: v["cbam"] for k, v in params.items() if k.startswith("layer")}
  assert len(blocks) == 8
  for name, part in blocks.items():
    width = 64 * 2 ** (int(name[5]) - 1)
    assert part["fc1"]["kernel"].shape == (width, width // 8)
    assert part["conv"]["kernel"].shape == (3, 3, 2, 1)


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_gradient_is_finite_and_reaches_every_parameter(
  arrangement: str,
) -> None:
  model, x = module(True, arrangement=arrangement), images(4, 8, 8, 32)
  variables = variables_of(model, x)

  @quick_jit
  def gradient(params: Any) -> Any:
    def loss(params: Any) -> jax.Array:
      out, _ = model.apply(
        {**variables, "params": params}, x, mutable=["batch_stats"]
      )
      return jnp.sum(out**3)

    return jax.grad(loss)(params)

  # Small: where the sigmoid is saturated the gradient is rightly zero.
  params = jax.tree.map(lambda p: 0.1 * p, variables["params"])
  for leaf in jax.tree.leaves(gradient(params)):
    assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


def test_gradient_is_that_of_finite_differences() -> None:
  model = module(kernel_size=3)
  x = images(2, 4, 3, 6)
  variables = variables_of(model, x)
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda v: v.astype(jnp.float64), (variables, x))
    check_grads(jax.jit(model.apply), wide, order=1, modes=["rev"], rtol=1e-6)


def test_gradient_through_a_block_is_finite() -> None:
  attention = functools.partial(CBAM, **factories(train=True))
  model = BasicBlock(16, stride=1, **factories(train=True), attention=attention)
  x = images(4, 6, 6, 1)
  variables = variables_of(model, x)

  @quick_jit
  def gradient(params: Any) -> Any:
    def loss(params: Any) -> jax.Array:
      out, _ = model.apply(
        {**variables, "params": params}, x, mutable=["batch_stats"]
      )
      return jnp.sum(out**2)

    return jax.grad(loss)(params)

  with dispatch.use_xla():  # the quickest to compile
    leaves = jax.tree.leaves(gradient(variables["params"]))
  # Compiled without optimization, the gradient of `jnp.max` is NaN here.
  for leaf in leaves:
    assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)
