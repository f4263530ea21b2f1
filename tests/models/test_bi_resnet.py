"""Tests of fer_jax.models.bi_resnet."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from quick_models import images, quick_jit, shapes

from fer_jax.errors import UserError
from fer_jax.models import bi_resnet, resnet
from fer_jax.models.bi_resnet import ARRANGEMENTS, BiResNet, check_blocks
from fer_jax.models.heads import JiangHead
from fer_jax.models.layers import Dropout
from fer_jax.models.mobilenet import InvertedResidualBlock, MobileNetV2
from fer_jax.models.resnet import BottleneckBlock, ResNet
from fer_jax.models.summary import summarize

TINY = (("residual", 16, 2, 1), ("inverted", 8, 2, 2))


def tiny(**options: Any) -> BiResNet:
  return BiResNet(7, blocks=TINY, **{"head": "linear", **options})


def called(model: nn.Module, *shape: int) -> list[nn.Module]:
  """The model's own parts in the order they are called."""
  seen = []

  def note(next_fn: Any, args: Any, kwargs: Any, context: Any) -> Any:
    if context.method_name == "__call__" and len(context.module.path) == 1:
      seen.append(context.module)
    return next_fn(*args, **kwargs)

  with nn.intercept_methods(note):
    shapes(model, *shape)
  return seen


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_cost_is_between_the_two_parents(name: str) -> None:
  model = BiResNet(7, blocks=ARRANGEMENTS[name])
  size = (48, 48, 1)
  macs = summarize(model, size).macs
  assert summarize(MobileNetV2(7), size).macs < macs < 0.12e9
  parent = ResNet((3, 4, 6, 3), BottleneckBlock, num_classes=7)
  assert macs < summarize(parent, size).macs


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_four_resolutions_as_in_resnet_50(name: str) -> None:
  model = BiResNet(7, blocks=ARRANGEMENTS[name])
  rows = summarize(model, (48, 48, 1)).rows
  sizes = [r.output_shape[0] for r in rows if r.name.startswith("layer")]  # type: ignore[index]
  assert list(dict.fromkeys(sizes)) == [12, 6, 3, 2]


def test_order_of_the_kinds() -> None:
  kinds = {
    name: [kind for kind, _, repeats, _ in blocks for _ in range(repeats)]
    for name, blocks in ARRANGEMENTS.items()
  }
  assert kinds["alternated"] == ["inverted", "residual"] * 8
  assert kinds["ri"] == sorted(kinds["ri"], reverse=True)
  assert kinds["ir"] == sorted(kinds["ir"])
  for order in kinds.values():
    assert set(order) == set(bi_resnet.KINDS)


def test_blocks_are_those_of_the_two_parents() -> None:
  parts: list[Any] = called(tiny(expansion=3), 1, 32, 32, 1)
  blocks = [m for m in parts if m.name.startswith("layer")]
  assert [(m.name, type(m)) for m in blocks] == [
    ("layer1_0", BottleneckBlock),
    ("layer1_1", BottleneckBlock),
    ("layer2_0", InvertedResidualBlock),
    ("layer2_1", InvertedResidualBlock),
  ]
  facts = [(b.features, b.stride) for b in blocks]
  assert facts == [(4, 1), (4, 1), (8, 2), (8, 1)]
  assert [b.expansion for b in blocks] == [4, 4, 3, 3]


@pytest.mark.parametrize("stem", resnet.STEMS)
def test_stem_is_that_of_resnet(stem: str) -> None:
  """With a ResNet's parameters the first block sees what it sees there."""
  x = images(2, 33, 32, 1)
  parent = ResNet((1,), BottleneckBlock, num_classes=7, stem=stem)
  model = BiResNet(
    7, blocks=(("residual", 256, 1, 1),), stem=stem, head="linear"
  )

  @quick_jit
  def run(x: jax.Array) -> Any:
    variables = parent.init(jax.random.key(0), x)
    return [
      module.apply(variables, x, capture_intermediates=True)[1]
      for module in (parent, model)
    ]

  theirs, ours = (state["intermediates"]["layer1_0"] for state in run(x))
  assert_array_equal(ours["__call__"], theirs["__call__"])


@pytest.mark.parametrize("blocks", [TINY, TINY[::-1]])
def test_pooled_features_are_relu6_of_the_last_block(
  blocks: tuple[bi_resnet.Entry, ...],
) -> None:
  x = images(2, 32, 32, 1)
  model = BiResNet(7, blocks=blocks, head="linear", dropout=0.0)

  @quick_jit
  def run(x: jax.Array) -> Any:
    variables = model.init(jax.random.key(0), x)
    last = variables["params"]["layer2_1"]
    norm = last["bn3" if "bn3" in last else "project_bn"]
    norm["scale"] = 100 * norm["scale"]
    logits, state = model.apply(
      variables,
      x,
      train=True,
      capture_intermediates=True,
      mutable=["batch_stats", "intermediates"],
    )
    last = state["intermediates"]["layer2_1"]["__call__"][0]
    return variables["params"]["fc"], logits, last

  fc, logits, last = jax.tree.map(np.asarray, run(x))
  assert np.any(last > 6)
  assert np.any(last < 0) == (blocks[-1][0] == "inverted")
  pooled = np.clip(last, 0, 6).mean(axis=(1, 2))
  np.testing.assert_allclose(
    logits, pooled @ fc["kernel"] + fc["bias"], rtol=1e-4, atol=1e-4
  )


def test_heads() -> None:
  linear, jiang = (
    called(tiny(head=head, dropout=0.2), 1, 32, 32, 1)
    for head in ("linear", "jiang")
  )
  assert isinstance(linear[-1], nn.Dense) and linear[-1].name == "fc"
  assert isinstance(linear[-2], Dropout) and linear[-2].rate == 0.2
  assert isinstance(jiang[-1], JiangHead) and jiang[-1].name == "head"
  assert (jiang[-1].num_classes, jiang[-1].dropout) == (7, 0.2)
  assert not any(isinstance(part, Dropout) for part in jiang)


@pytest.mark.parametrize("zero", [False, True])
def test_zero_init_residual_is_for_both_kinds(zero: bool) -> None:
  starts = {}

  def note(next_fn: Any, args: Any, kwargs: Any, context: Any) -> Any:
    if isinstance(context.module, nn.BatchNorm):
      starts["/".join(context.module.path)] = context.module.scale_init
    return next_fn(*args, **kwargs)

  with nn.intercept_methods(note):
    shapes(tiny(zero_init_residual=zero), 1, 32, 32, 1)
  zeros = {name for name, s in starts.items() if s is nn.initializers.zeros}
  expected = {
    *("layer1_0/bn3", "layer1_1/bn3"),
    "layer2_1/project_bn",  # layer2_0 has no shortcut
  }
  assert zeros == (expected if zero else set())


def test_a_list_of_lists_is_the_same_model() -> None:
  assert BiResNet(7, blocks=[list(entry) for entry in TINY]) == (  # type: ignore[arg-type]
    BiResNet(7, blocks=TINY)
  )


@pytest.mark.parametrize(
  ("entry", "fault"),
  [
    (("dense", 16, 1, 1), "unknown kind 'dense': choose one of inverted, res"),
    (("residual", 18, 1, 1), "channels of residual blocks .* multiple of 4"),
    (("inverted", 18, 1), r"an entry is \(kind, channels, repeats, stride\)"),
    ("inverted", r"an entry is \(kind, channels, repeats, stride\)"),
    (("inverted", 18, 0, 1), "must be positive integers"),
    (("inverted", 18.0, 1, 1), "must be positive integers"),
    (("inverted", 18, 1, True), "must be positive integers"),
  ],
)
def test_a_wrong_entry_is_named(entry: Any, fault: str) -> None:
  with pytest.raises(UserError, match=fault) as error:
    BiResNet(7, blocks=(("residual", 16, 1, 1), entry))
  assert str(error.value).startswith(f"model.blocks[1]={entry!r}: ")
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("blocks", [(), "ri", None])
def test_no_entries(blocks: Any) -> None:
  with pytest.raises(UserError, match="must be a list of"):
    check_blocks(blocks)


def test_inverted_blocks_may_have_any_number_of_channels() -> None:
  assert check_blocks([["inverted", 18, 1, 1]]) == (("inverted", 18, 1, 1),)


@pytest.mark.parametrize(
  ("option", "value", "message"),
  [
    ("stem", "large", "unknown stem 'large'"),
    ("head", "mlp", "unknown head 'mlp': choose one of jiang, linear"),
    ("expansion", 0, "model.expansion=0 must be at least 1"),
    ("dropout", -0.1, r"model.dropout=-0.1 must be in \[0, 1\)"),
  ],
)
def test_wrong_options(option: str, value: Any, message: str) -> None:
  with pytest.raises(UserError, match=message):
    BiResNet(7, **{option: value})
