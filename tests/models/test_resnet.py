"""Tests of fer_jax.models.resnet."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from quick_models import images, quick_jit

from fer_jax.errors import UserError
from fer_jax.models import create, resnet
from fer_jax.models.resnet import BasicBlock, BottleneckBlock, ResNet
from fer_jax.models.summary import summarize
from fer_jax.ops import convolution, dispatch


def tiny(block: resnet.Block = BasicBlock, **options: Any) -> ResNet:
  """Two stages of two and one blocks."""
  return ResNet((2, 1), block, num_classes=7, **options)


def init(model: nn.Module, x: jax.Array) -> Any:
  """Initial variables; XLA's own convolutions are the quickest to trace."""
  start = functools.partial(model.init, train=False)
  with dispatch.use_xla():
    return quick_jit(start)(jax.random.key(0), x)


def outputs(model: nn.Module, variables: Any, x: Any, **options: Any) -> Any:
  """Every module's output, by the path of its name."""
  options["mutable"] = [*options.get("mutable", ()), "intermediates"]
  _, state = model.apply(variables, x, capture_intermediates=True, **options)
  return jax.tree.map(
    lambda calls: calls[0],
    state["intermediates"],
    is_leaf=lambda node: isinstance(node, tuple),
  )


@pytest.mark.parametrize(
  ("stem", "sizes"),
  [
    ("imagenet", (24, 12, 6, 3, 2)),
    ("small", (48, 48, 24, 12, 6)),
    ("small_stride2", (24, 24, 12, 6, 3)),
  ],
)
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_feature_maps(name: str, stem: str, sizes: tuple[int, ...]) -> None:
  model = create(name, num_classes=7, stem=stem)
  shapes = {r.name: r.output_shape for r in summarize(model, (48, 48, 1)).rows}
  expansion = 4 if name == "resnet50" else 1
  assert shapes["conv1"] == (sizes[0], sizes[0], 64)
  for stage, size in enumerate(sizes[1:]):
    width = 64 * 2**stage * expansion
    assert shapes[f"layer{stage + 1}"] == (size, size, width)
  assert shapes["fc"] == (7,)


def test_width_scales_every_stage() -> None:
  model = create("resnet18", num_classes=8, stem="small_stride2", width=0.5)
  shapes = {r.name: r.output_shape for r in summarize(model, (48, 48, 1)).rows}
  widths = [(shapes[n] or ())[-1] for n in ("conv1", "layer1", "layer4")]
  assert widths == [32, 32, 256]
  x = jax.ShapeDtypeStruct((1, 48, 48, 1), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
  assert sum(p.size for p in jax.tree.leaves(params)) == 2_796_520


def test_width_must_be_positive() -> None:
  with pytest.raises(UserError, match=r"model\.width"):
    create("resnet18", num_classes=7, width=0.0)


@pytest.mark.parametrize(("stem", "size"), [("imagenet", 7), ("small", 3)])
def test_stem_kernels(stem: str, size: int) -> None:
  x = jax.ShapeDtypeStruct((1, 48, 48, 1), jnp.float32)
  variables = jax.eval_shape(tiny(stem=stem).init, jax.random.key(0), x)
  kernel = variables["params"]["conv1"]["kernel"]
  assert kernel.shape == (size, size, 1, 64)


def test_unknown_stem_lists_what_there_is() -> None:
  with pytest.raises(UserError, match="unknown stem 'large': .*small_stride2"):
    create("resnet18", num_classes=7, stem="large")


@pytest.mark.parametrize(
  ("name", "projected"),
  [
    ("resnet18", {"layer2_0", "layer3_0", "layer4_0"}),
    ("resnet34", {"layer2_0", "layer3_0", "layer4_0"}),
    ("resnet50", {"layer1_0", "layer2_0", "layer3_0", "layer4_0"}),
  ],
)
def test_shortcuts_are_projected_where_the_shape_changes(
  name: str, projected: set[str]
) -> None:
  x = jax.ShapeDtypeStruct((1, 48, 48, 1), jnp.float32)
  model = create(name, num_classes=7)
  params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
  blocks = {path for path in params if path.startswith("layer")}
  assert {b for b in blocks if "downsample_conv" in params[b]} == projected
  assert {b for b in blocks if "downsample_bn" in params[b]} == projected


def test_the_stride_is_at_the_3x3() -> None:
  x = jax.ShapeDtypeStruct((1, 48, 48, 1), jnp.float32)
  model = tiny(BottleneckBlock)
  block = jax.eval_shape(
    lambda x: outputs(model, model.init(jax.random.key(0), x), x), x
  )["layer2_0"]
  assert block["conv1"]["__call__"].shape == (1, 12, 12, 128)
  assert block["conv2"]["__call__"].shape == (1, 6, 6, 128)
  assert block["conv3"]["__call__"].shape == (1, 6, 6, 512)


@pytest.mark.parametrize(
  ("block", "last"), [(BasicBlock, "bn2"), (BottleneckBlock, "bn3")]
)
def test_zero_init_residual(block: resnet.Block, last: str) -> None:
  model, x = tiny(block, zero_init_residual=True), images(2, 16, 16, 1)
  variables = init(model, x)
  for name, part in variables["params"].items():
    if name.startswith("layer"):
      for norm in (n for n in part if "bn" in n):
        expected = 0.0 if norm == last else 1.0
        assert_array_equal(
          part[norm]["scale"], np.full(part[norm]["scale"].shape, expected)
        )
  out = quick_jit(functools.partial(outputs, model))(variables, x)
  assert_array_equal(out["layer1_1"]["__call__"], out["layer1_0"]["__call__"])
  assert_array_equal(
    out["layer2_0"]["__call__"],
    np.maximum(out["layer2_0"]["downsample_bn"]["__call__"], 0.0),
  )


def test_blocks_do_something_without_zero_init() -> None:
  model, x = tiny(), images(2, 16, 16, 1)
  variables = init(model, x)
  scale = variables["params"]["layer1_1"]["bn2"]["scale"]
  assert_array_equal(scale, np.ones(64))
  out = quick_jit(functools.partial(outputs, model))(variables, x)
  before, after = (out[f"layer1_{i}"]["__call__"] for i in (0, 1))
  assert float(jnp.max(jnp.abs(after - before))) > 0.1


@pytest.mark.parametrize("block", [BasicBlock, BottleneckBlock])
def test_stochastic_depth_skips_later_blocks_more(block: resnet.Block) -> None:
  x = images(90, 8, 8, 1)
  model = ResNet((1, 2), block, num_classes=7, width=0.1)
  variables = init(model, x)
  options = {
    "train": True,
    "mutable": ["batch_stats"],
    "rngs": {"dropout": jax.random.key(1)},
  }
  skipping = model.clone(stochastic_depth=0.9)
  out = outputs(skipping, variables, x, **options)
  before, after = (out[f"layer2_{i}"]["__call__"] for i in (0, 1))
  skipped = np.all(before == after, axis=(1, 2, 3))
  assert 0.8 < skipped.mean() < 1  # 0.9

  shortcut = np.maximum(out["layer2_0"]["downsample_bn"]["__call__"], 0.0)
  skipped = np.all(before == shortcut, axis=(1, 2, 3))
  assert 0.45 < skipped.mean() < 0.75  # 0.6

  assert_array_equal(model.apply(variables, x), skipping.apply(variables, x))


def test_a_wrong_rate_of_stochastic_depth() -> None:
  with pytest.raises(UserError, match=r"model.stochastic_depth=1.0 must be in"):
    create("resnet18", num_classes=7, stochastic_depth=1.0)


def test_batch_statistics_change_in_training_only() -> None:
  model, x = tiny(), images(4, 16, 16, 1)

  @quick_jit
  def run(x: jax.Array) -> Any:
    variables = model.init(jax.random.key(0), x)
    states = [
      model.apply(variables, x, train=train, mutable=["batch_stats"])
      for train in (False, True)
    ]
    return variables["batch_stats"], *(s["batch_stats"] for _, s in states)

  before, evaluated, trained = run(x)
  jax.tree.map(assert_array_equal, evaluated, before)
  for old, new in zip(
    jax.tree.leaves(before), jax.tree.leaves(trained), strict=True
  ):
    assert not np.allclose(old, new, atol=1e-6)


def test_lowerings_agree_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
  """A ResNet-18 by the rules for CPU is that of XLA's own operations.

  Sides of 45 and 49 meet odd and even maps, down to 2x2. Logits are float32;
  what is compared to the end of float64 are the last feature maps.
  """
  x = images(2, 45, 49, 1)
  variables = init(create("resnet18", num_classes=7), x)

  def run() -> Any:
    # A new function each time, so that JAX traces it again.
    def project(params: Any) -> Any:
      state = {"params": params, "batch_stats": variables["batch_stats"]}
      model = create("resnet18", num_classes=7, dtype=jnp.float64)
      parts = outputs(model, state, x, train=True, mutable=["batch_stats"])
      last, logits = parts["layer4_1"]["__call__"], parts["__call__"]
      weights = jnp.arange(last.size, dtype=last.dtype) % 7 - 3
      return jnp.sum(last * weights.reshape(last.shape)), (last, logits)

    with jax.enable_x64(True):
      params = jax.tree.map(
        lambda p: p.astype(jnp.float64), variables["params"]
      )
      (_, out), gradient = quick_jit(jax.value_and_grad(project, has_aux=True))(
        params
      )
    del gradient["fc"]  # behind what is projected
    return *out, gradient

  features, logits, gradient = run()
  monkeypatch.setattr(convolution, "max_pool", nn.max_pool)
  with dispatch.use_xla():
    xla_features, xla_logits, xla_gradient = run()

  np.testing.assert_allclose(logits, xla_logits, rtol=1e-5, atol=1e-5)
  for a, b in zip(
    jax.tree.leaves((features, gradient)),
    jax.tree.leaves((xla_features, xla_gradient)),
    strict=True,
  ):
    assert a.dtype == b.dtype == jnp.float64
    scale = np.max(np.abs(b))
    assert 0 < scale < np.inf
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-9 * scale)
