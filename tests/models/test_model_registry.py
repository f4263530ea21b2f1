"""Tests of fer_jax.models.registry, and of every model in it."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from fer_jax.errors import UserError
from fer_jax.models import create, list_models, options_of
from fer_jax.models.registry import canonical_name
from fer_jax.ops import convolution, lowerings

# Trained numbers with 3 channels and 7 classes. A new model is one line here.
PINNED = {
  "alexnet": 5_850_087,
  "bi_resnet_alternated": 9_811_271,
  "cbam_resnet101": 47_295_515,
  "cbam_resnet152": 64_792_191,
  "cbam_resnet18": 11_269_983,
  "cbam_resnet34": 21_451_059,
  "cbam_resnet50": 26_054_967,
  "bi_resnet_ir": 21_156_487,
  "leaky_cnn": 1_275_207,
  "mobilenet": 3_214_151,
  "mobilenet_v2": 2_232_839,
  "resnet101": 42_514_503,
  "resnet152": 58_158_151,
  "resnet18": 11_180_103,
  "resnet34": 21_288_263,
  "resnet50": 23_522_375,
  "bi_resnet_ri": 6_996_935,
}


def images(size: int, channels: int) -> jax.ShapeDtypeStruct:
  """Two images, in shape only."""
  return jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)


def abstract(name: str, x: jax.ShapeDtypeStruct) -> tuple[Any, Any]:
  """Logits and variables of a model of 7 classes, in shape only."""
  model = create(name, num_classes=7)
  return jax.eval_shape(
    lambda x: model.init_with_output(jax.random.key(0), x, train=False), x
  )


def test_every_model_is_pinned_and_every_pinned_one_a_model() -> None:
  assert list_models() == sorted(PINNED)


@pytest.mark.parametrize("name", list_models())
def test_number_of_parameters(name: str) -> None:
  logits, variables = abstract(name, images(48, 3))
  assert sum(p.size for p in jax.tree.leaves(variables["params"])) == (
    PINNED.get(name)
  )
  assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)


@pytest.mark.parametrize("name", list_models())
def test_other_sizes_and_one_channel(name: str) -> None:
  logits, variables = abstract(name, images(64, 1))
  assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
  for leaf in jax.tree.leaves(variables):
    assert leaf.dtype == jnp.float32


@pytest.mark.parametrize("name", list_models())
def test_gradient_has_the_parameters_tree(name: str) -> None:
  model, x = create(name, num_classes=7), images(48, 1)
  _, variables = abstract(name, x)
  params = variables.pop("params")

  def loss(params: Any, rest: Any, x: Any) -> Any:
    logits, updated = model.apply(
      {"params": params, **rest},
      x,
      train=True,
      mutable=list(rest),
      rngs={"dropout": jax.random.key(0)},
    )
    return jnp.sum(logits), updated

  # Lowerings give equal shapes; XLA's own is the quickest to trace.
  with convolution.use(convolution.Rule.all(lowerings.native)):
    gradient, updated = jax.eval_shape(
      jax.grad(loss, has_aux=True), params, variables, x
    )
  assert gradient == params
  assert updated == variables


def test_unknown_model_lists_what_there_is() -> None:
  with pytest.raises(UserError, match="unknown model 'resnet19'") as error:
    create("resnet19", num_classes=7)
  for name in list_models():
    assert name in str(error.value)


def test_unknown_option_lists_what_there_is() -> None:
  with pytest.raises(UserError) as error:
    create("resnet18", num_classes=7, stemm="small")
  assert str(error.value) == (
    "unknown option 'stemm' of model resnet18: its options are attention,"
    " attention_kernel_size, attention_reduction, stem, zero_init_residual"
  )


@pytest.mark.parametrize("option", ["block", "stage_sizes", "train"])
def test_what_a_model_fixes_is_no_option(option: str) -> None:
  with pytest.raises(UserError, match=f"unknown option '{option}'"):
    create("resnet18", num_classes=7, **{option: 1})


@pytest.mark.parametrize("name", ["ri", "ir", "alternated"])
def test_a_former_name_is_accepted_and_not_listed(name: str) -> None:
  assert name not in list_models()
  assert canonical_name(name) == f"bi_resnet_{name}"
  assert create(name, num_classes=7) == create(f"bi_resnet_{name}", 7)
  assert options_of(name) == options_of(f"bi_resnet_{name}")


def test_options_have_types_and_defaults() -> None:
  assert options_of("cbam_resnet18")["attention"] == (str, "sequential")
  assert options_of("leaky_cnn")["widths"] == (tuple[int, ...], (32, 64, 128))


def test_an_unset_option_is_the_models_own() -> None:
  model: Any = create("resnet18", num_classes=7, stem=None, unheard_of=None)
  assert model.stem == "imagenet"


def test_options_reach_the_model() -> None:
  model: Any = create(
    "resnet50",
    num_classes=8,
    stem="small",
    zero_init_residual=True,
    dtype=jnp.bfloat16,
    axis_name="batch",
  )
  assert (model.num_classes, model.stem) == (8, "small")
  assert (model.zero_init_residual, model.axis_name) == (True, "batch")
  assert model.dtype == jnp.bfloat16
