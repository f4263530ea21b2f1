"""Tests of fer_jax.models.summary."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from fer_jax.models import create
from fer_jax.models.summary import summarize

# GFLOPs of training on one 48x48x1 image.
KNOWN = {
  "resnet18": 0.562,
  "resnet34": 1.122,
  "resnet50": 1.252,
  "resnet101": 2.275,
  "resnet152": 3.298,
}


@pytest.mark.parametrize("name", KNOWN)
def test_training_flops_of_resnets(name: str) -> None:
  summary = summarize(create(name, num_classes=7), (48, 48, 1))
  assert summary.training_flops / 1e9 == pytest.approx(KNOWN[name], abs=5e-4)
  assert summary.forward_flops == 2 * summary.macs


def test_blocks_are_grouped_by_stage() -> None:
  rows = summarize(create("resnet18", num_classes=7), (48, 48, 1)).rows
  assert [row.name for row in rows] == [
    "conv1",
    "bn1",
    "layer1",
    "layer2",
    "layer3",
    "layer4",
    "fc",
  ]
  conv1, layer2, fc = rows[0], rows[3], rows[-1]
  assert conv1.output_shape == (24, 24, 64)
  assert conv1.macs == 24 * 24 * 64 * 49
  assert layer2.output_shape == (6, 6, 128)
  assert (fc.output_shape, fc.macs, fc.num_parameters) == ((7,), 3584, 3591)


class Parts(nn.Module):
  """A grouped and a plain convolution, a layer used twice, a bare parameter."""

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
    """Maps images to [b 2 3]."""
    x = nn.Conv(4, (1, 1), use_bias=False)(x)
    x = nn.Conv(8, (3, 3), strides=2, feature_group_count=4, name="dw")(x)
    x = nn.BatchNorm(use_running_average=not train)(x)
    shared = nn.Dense(8, name="shared")
    x = shared(shared(jnp.mean(x, axis=(1, 2))))
    x = x + self.param("token", nn.initializers.zeros, (1, 8))
    return nn.DenseGeneral((2, 3), name="general")(x)


def test_layers_of_every_kind() -> None:
  summary = summarize(Parts(), (6, 6, 2))
  rows = {row.name: row for row in summary.rows}
  assert rows["Conv_0"].macs == 36 * 4 * 2
  assert rows["dw"].macs == 9 * 8 * 9  # one input channel a group
  assert rows["dw"].num_parameters == 8 * 9 + 8
  assert rows["BatchNorm_0"].macs == 0
  assert rows["BatchNorm_0"].num_parameters == 16
  assert rows["shared"].macs == 2 * 64
  assert rows["shared"].num_parameters == 72
  assert rows["general"].macs == 8 * 6
  assert rows["general"].output_shape == (2, 3)
  assert rows["Parts"].num_parameters == 8
  assert summary.macs == 288 + 648 + 128 + 48
  assert summary.training_flops == 2 * (3 * summary.macs - 288)


def test_a_model_without_convolutions() -> None:
  class Flat(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
      del train
      return nn.Dense(3)(nn.Dense(5)(x.reshape(x.shape[0], -1)))

  summary = summarize(Flat(), (2, 2, 1))
  assert summary.training_flops == 2 * (3 * (20 + 15) - 20)


def test_nothing_is_compiled_or_computed() -> None:
  # Terabytes, were they real.
  class Huge(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
      del train
      return nn.Dense(2**20)(nn.Dense(2**20)(x))

  assert summarize(Huge(), (2**10, 2**10, 1)).num_parameters > 2**40


def test_table_is_aligned() -> None:
  text = str(summarize(create("resnet18", num_classes=7), (48, 48, 1)))
  *table, last = text.splitlines()
  assert len({len(line) for line in table}) == 1
  assert table[-1].split() == ["total", "11,173,831", "94.35"]
  assert "0.562 GFLOPs training" in last
