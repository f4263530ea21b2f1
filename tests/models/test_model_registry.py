"""Tests of fer_jax.models.registry."""

import math
import re
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.models import create, list_models, options_of
from fer_jax.models.registry import canonical_name


def test_an_unknown_model_lists_the_models() -> None:
  with pytest.raises(UserError, match="unknown model 'resnet19'") as error:
    create("resnet19", num_classes=7)
  for name in list_models():
    assert name in str(error.value)


def test_an_unknown_option_lists_the_options() -> None:
  with pytest.raises(UserError) as error:
    create("resnet18", num_classes=7, stemm="small")
  assert str(error.value) == (
    "unknown option 'stemm' of model resnet18: its options are attention,"
    " attention_kernel_size, attention_reduction, stem,"
    " stochastic_depth, width, zero_init_residual"
  )


@pytest.mark.parametrize("num_classes", [0, -3])
def test_a_model_has_classes(num_classes: int) -> None:
  with pytest.raises(UserError, match="num_classes=.* must be at least 1"):
    create("resnet18", num_classes)


@pytest.mark.parametrize("model", ["resnet18", "mobilenet"])
@pytest.mark.parametrize("width", [0.0, math.inf, math.nan])
def test_widths_are_finite(model: str, width: float) -> None:
  with pytest.raises(UserError, match="model.width=.*above 0 and finite"):
    create(model, 7, width=width)


@pytest.mark.parametrize(
  ("name", "options", "message"),
  [
    (["resnet18"], {}, "model.name=['resnet18'] must be a string"),
    ("resnet18", {"num_classes": "7"}, "num_classes='7' must be an integer"),
    ("resnet18", {"num_classes": 7.5}, "num_classes=7.5 must be an integer"),
    ("resnet18", {"width": "2"}, "model.width='2' must be a number"),
    ("resnet18", {"zero_init_residual": "no"}, "must be true or false"),
    ("resnet18", {"dtype": "floaty"}, "dtype=floaty must be a floating-"),
    ("resnet18", {"dtype": "int8"}, "dtype=int8 must be a floating-"),
    ("alexnet", {"dropout": "x"}, "model.dropout='x' must be a number"),
    ("leaky_cnn", {"widths": 32}, "model.widths=32 must be a tuple"),
    ("bi_resnet_ri", {"expansion": 1.5}, "model.expansion=1.5 must be an int"),
  ],
)
def test_types_are_checked(
  name: Any, options: dict[str, Any], message: str
) -> None:
  with pytest.raises(UserError, match=re.escape(message)):
    create(name, **{"num_classes": 7, **options})


def test_scalars_of_numpy_fit() -> None:
  sizes: dict[str, Any] = {"num_classes": np.int64(7), "dense": np.int32(9)}
  model: Any = create("leaky_cnn", **sizes, widths=np.array([4, 8]))
  assert type(model.num_classes) is int and model.widths == (4, 8)
  assert create("resnet18", 7, width=2) == create("resnet18", 7, width=2.0)


@pytest.mark.parametrize("option", ["block", "stage_sizes", "train"])
def test_internal_fields_are_not_options(option: str) -> None:
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
