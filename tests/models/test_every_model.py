"""Tests of every registered model: its size, gradient, dtypes and dropout.

Values are computed with small versions of the models, which consist of the
same blocks: the large ones take minutes to compile.
"""

import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from numpy.testing import assert_allclose, assert_array_equal
from quick_models import quick_jit

from fer_jax.models import create, list_models, mobilenet, options_of
from fer_jax.models.bi_resnet import BiResNet
from fer_jax.models.leaky_cnn import LeakyCNN
from fer_jax.models.resnet import ResNet
from fer_jax.models.summary import summarize
from fer_jax.ops import dispatch

# Number of parameters with 3 channels and 7 classes. A new model is one line.
NUM_PARAMETERS = {
  "alexnet": 5_850_087,
  "bi_resnet_alternated": 9_811_271,
  "bi_resnet_ir": 21_156_487,
  "bi_resnet_ri": 6_996_935,
  "cbam_resnet101": 47_295_515,
  "cbam_resnet152": 64_792_191,
  "cbam_resnet18": 11_269_983,
  "cbam_resnet34": 21_451_059,
  "cbam_resnet50": 26_054_967,
  "leaky_cnn": 1_275_207,
  "mobilenet": 3_214_151,
  "mobilenet_v2": 2_232_839,
  "resnet101": 42_514_503,
  "resnet152": 58_158_151,
  "resnet18": 11_180_103,
  "resnet34": 21_288_263,
  "resnet50": 23_522_375,
}


def small(name: str, **options: Any) -> Any:
  """A registered model with few blocks, of the same kinds."""
  model = create(name, num_classes=7, **options)
  if isinstance(model, ResNet):
    return model.clone(stage_sizes=(1, 1))
  if isinstance(model, BiResNet):
    blocks = (("residual", 16, 1, 1), ("inverted", 16, 1, 1))
    return model.clone(blocks=blocks)
  if isinstance(model, LeakyCNN):
    return model.clone(widths=(4, 6), dense=16)
  if "width" in options_of(name):
    return model.clone(width=0.25)
  return model


@pytest.fixture
def shallow_mobilenets(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(mobilenet, "V1_BLOCKS", ((16, 1), (32, 2)))
  monkeypatch.setattr(mobilenet, "V2_STAGES", ((1, 16, 1, 1), (2, 24, 2, 2)))


# One name of each distinct small model, with options that add parts.
CASES: list[tuple[str, dict[str, Any]]] = [
  *{small(name): (name, {}) for name in reversed(list_models())}.values(),
  ("bi_resnet_ri", {"head": "linear"}),
  ("leaky_cnn", {"conv_batch_norm": True}),
]
WITH_DROPOUT = [case for case in CASES if "dropout" in options_of(case[0])]


def images(batch_size: int, size: int = 32, channels: int = 1) -> jax.Array:
  shape = (batch_size, size, size, channels)
  x = np.random.default_rng(0).normal(size=shape)
  return jnp.asarray(x, jnp.float32)


def init(model: nn.Module, x: jax.Array) -> Any:
  """Variables with noise, so that no scale is zero."""

  def noisy(variables: Any) -> Any:
    rng = np.random.default_rng(1)
    return jax.tree.map(
      lambda leaf: leaf + (leaf.ndim == 1) * rng.uniform(0.1, 0.2, leaf.shape),
      variables,
    )

  return quick_jit(lambda x: noisy(model.init(jax.random.key(0), x)))(x)


def shapes(name: str, *shape: int) -> tuple[Any, Any]:
  """Shapes of the logits and of the variables."""
  model, x = create(name, 7), jax.ShapeDtypeStruct(shape, jnp.float32)
  with dispatch.use_xla():
    return jax.eval_shape(
      lambda x: model.init_with_output(jax.random.key(0), x), x
    )


def test_every_model_has_a_pinned_size() -> None:
  assert list_models() == sorted(NUM_PARAMETERS)


@pytest.mark.parametrize("name", list_models())
def test_number_of_parameters(name: str) -> None:
  logits, variables = shapes(name, 2, 48, 48, 3)
  sizes = [leaf.size for leaf in jax.tree.leaves(variables["params"])]
  assert sum(sizes) == NUM_PARAMETERS.get(name)
  summary = summarize(create(name, num_classes=7), (48, 48, 3))
  assert summary.num_parameters == NUM_PARAMETERS.get(name)
  assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)


@pytest.mark.parametrize("name", list_models())
def test_other_sizes_and_one_channel(name: str) -> None:
  logits, variables = shapes(name, 2, 64, 64, 1)
  assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
  for leaf in jax.tree.leaves(variables):
    assert leaf.dtype == jnp.float32


@pytest.mark.usefixtures("shallow_mobilenets")
@pytest.mark.parametrize(("name", "options"), CASES)
def test_gradient_is_finite_and_reaches_every_parameter(
  name: str, options: Any
) -> None:
  if "dropout" in options_of(name):
    options = {**options, "dropout": 0.0}
  model, x = small(name, **options), images(4, channels=3)

  def loss(params: Any, rest: Any) -> Any:
    logits, updated = model.apply(
      {"params": params, **rest}, x, train=True, mutable=list(rest)
    )
    return jnp.sum(logits**2), updated

  with dispatch.use_xla():  # the fastest to compile
    rest = init(model, x)
    params = rest.pop("params")
    (value, updated), gradient = quick_jit(
      jax.value_and_grad(loss, has_aux=True)
    )(params, rest)
  assert np.isfinite(value) and value > 0
  assert str(jax.tree.structure(updated)) == str(jax.tree.structure(rest))
  for path, leaf in jax.tree.leaves_with_path(gradient):
    assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), path


@pytest.mark.usefixtures("shallow_mobilenets")
@pytest.mark.parametrize(("name", "options"), CASES)
def test_bfloat16_is_for_the_compute_only(name: str, options: Any) -> None:
  model = small(name, dtype=jnp.bfloat16, **options)

  def run(x: jax.Array) -> Any:
    variables = model.init(jax.random.key(0), x)
    logits, state = model.apply(
      variables,
      x,
      train=True,
      mutable=["batch_stats", "intermediates"],
      rngs={"dropout": jax.random.key(0)},
      capture_intermediates=True,
    )
    outputs = state.pop("intermediates")
    del outputs["__call__"]
    return (variables, logits, state), outputs

  with dispatch.use_xla():
    float32, outputs = jax.eval_shape(run, images(2))
  for leaf in jax.tree.leaves(float32):
    assert leaf.dtype == jnp.float32
  parts = {name for name in outputs if not name.startswith("Dropout")}
  last = {"alexnet": "fc3", "leaky_cnn": "fc2"}.get(name, "fc")
  hidden = parts - {last, "head"}
  assert len(hidden) >= 4
  for part in hidden:
    for leaf in jax.tree.leaves(outputs[part]):
      assert leaf.dtype == jnp.bfloat16, part


@pytest.mark.usefixtures("shallow_mobilenets")
@pytest.mark.parametrize(("name", "options"), WITH_DROPOUT)
def test_dropout_is_for_training_only(name: str, options: Any) -> None:
  model, x = small(name, dropout=0.5, **options), images(4)

  @functools.partial(quick_jit, static_argnames="train")
  def run(variables: Any, seed: int, train: bool) -> Any:
    logits, _ = model.apply(
      variables,
      x,
      train=train,
      mutable=["batch_stats"],
      rngs={"dropout": jax.random.key(seed)},
    )
    return logits

  with dispatch.use_xla():
    variables = init(model, x)
    first, same, other = (run(variables, seed, True) for seed in (1, 1, 2))
    evaluated = [run(variables, seed, False) for seed in (1, 2)]
    plain = quick_jit(small(name, dropout=0.0, **options).apply)(variables, x)
  assert_array_equal(first, same)
  assert float(jnp.max(jnp.abs(first - other))) > 1e-3
  assert_array_equal(*evaluated)
  assert_allclose(evaluated[0], plain, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("shallow_mobilenets")
@pytest.mark.parametrize(
  ("name", "options", "mode"),
  [
    # What a mode does, it does to every model, with any options.
    pytest.param(
      *case, mode, marks=[pytest.mark.slow] * (mode != first or case[1] != {})
    )
    for case, first in zip(
      WITH_DROPOUT, itertools.cycle(("pmap", "shard_map")), strict=False
    )
    for mode in ("pmap", "shard_map")
  ],
)
def test_four_devices_equal_one_with_dropout(
  name: str, options: Any, mode: str
) -> None:
  assert jax.device_count() == 4
  model, x = small(name, dropout=0.5, **options), images(16)
  weights = jnp.asarray(np.random.default_rng(2).normal(size=(16, 7)), x.dtype)

  def run(model: nn.Module, variables: Any, x: Any, weights: Any) -> Any:
    def loss(params: Any) -> Any:
      logits, _ = model.apply(
        {**variables, "params": params},
        x,
        train=True,
        mutable=["batch_stats"],
        rngs={"dropout": jax.random.key(3)},
      )
      return jnp.sum(nn.log_softmax(logits) * weights), logits

    gradient, logits = jax.grad(loss, has_aux=True)(variables["params"])
    if axis := getattr(model, "axis_name"):  # noqa: B009
      gradient = jax.lax.psum(gradient, axis)
    return gradient, logits

  with dispatch.use_xla():
    variables = init(model, x)
    one = quick_jit(functools.partial(run, model))(variables, x, weights)
    share = functools.partial(run, model.clone(axis_name="batch"))
    if mode == "pmap":
      split = [array.reshape(4, 4, *array.shape[1:]) for array in (x, weights)]
      gradient, logits = jax.pmap(
        share, axis_name="batch", in_axes=(None, 0, 0), out_axes=(None, 0)
      )(variables, *split)
      four = gradient, logits.reshape(16, 7)
    else:
      mesh = Mesh(np.array(jax.devices()), ("batch",))
      four = jax.jit(
        jax.shard_map(
          share,
          mesh=mesh,
          in_specs=(P(), P("batch"), P("batch")),
          out_specs=(P(), P("batch")),
          check_vma=False,
        )
      )(variables, x, weights)
  for a, b in zip(jax.tree.leaves(four), jax.tree.leaves(one), strict=True):
    # Rounding can switch a ReLU, and BatchNorm of few images amplifies it.
    # With other masks the error would be as large as the norm.
    error, norm = np.linalg.norm(a - b), np.linalg.norm(b)
    assert error <= 5e-2 * norm + 1e-5, (error, norm)
