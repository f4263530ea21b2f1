"""Registry of models: creates a Flax module from a model's name."""

import functools
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from fer_jax import config_values, python_files
from fer_jax.errors import UserError, choose, require
from fer_jax.models.alexnet import AlexNet
from fer_jax.models.bi_resnet import ARRANGEMENTS, BiResNet
from fer_jax.models.leaky_cnn import LeakyCNN
from fer_jax.models.mobilenet import MobileNetV1, MobileNetV2
from fer_jax.models.resnet import DEPTHS, ResNet

_RESNETS = {
  name: functools.partial(ResNet, stage_sizes=sizes, block=block)
  for name, (sizes, block) in DEPTHS.items()
}
_CBAM_RESNETS = {
  f"cbam_{name}": functools.partial(resnet, attention="sequential")
  for name, resnet in _RESNETS.items()
}
_BI_RESNETS = {
  f"bi_resnet_{name}": functools.partial(BiResNet, blocks=blocks)
  for name, blocks in ARRANGEMENTS.items()
}
MODELS: dict[str, Callable[..., nn.Module]] = {
  **_RESNETS,
  **_CBAM_RESNETS,
  **_BI_RESNETS,
  "alexnet": AlexNet,
  "leaky_cnn": LeakyCNN,
  "mobilenet": MobileNetV1,
  "mobilenet_v2": MobileNetV2,
}

# The environment variable that names a Python file, which adds to `MODELS`. It
# is executed when a name is unknown, in child processes too.
OWN_NETWORKS = "FER_JAX_NETWORKS"

# Former names; accepted everywhere a name is, but not listed.
ALIASES = {name: f"bi_resnet_{name}" for name in ARRANGEMENTS}

# Fields set by this package or by the table above, not by a user.
_INTERNAL_FIELDS = frozenset(
  {
    "parent",
    "name",
    "num_classes",
    "dtype",
    "axis_name",
    "stage_sizes",
    "block",
  }
)


class Option(NamedTuple):
  """An option of a model.

  Attributes:
    type: its annotation, such as `float` or `tuple[int, ...]`.
    default: the value used when the option is not given.
  """

  type: Any
  default: Any


def list_models() -> list[str]:
  """Returns the names of all models, sorted."""
  return sorted(MODELS)


def canonical_name(name: str) -> str:
  """Returns the listed name of a model, given that name or an alias.

  Raises:
    UserError: the name is unknown; the message lists the models.

  >>> canonical_name("ri")
  'bi_resnet_ri'
  """
  name = config_values.typed("model.name", name, str)
  name = ALIASES.get(name, name)
  if name not in MODELS and (own := os.environ.get(OWN_NETWORKS)):
    python_files.execute(Path(own), f"{OWN_NETWORKS}={own}")
  try:
    return choose("model", name, MODELS)
  except UserError as e:
    raise UserError(
      f"{e}; or set {OWN_NETWORKS} to the file of your own network"
    ) from None


def create(name: str, num_classes: int, **options: Any) -> nn.Module:
  """Creates a model.

  Args:
    name: a name that `list_models` returns, or an alias.
    num_classes: number of classes, the size of the logits; at least 1.
    **options: the model's options (see `options_of`), such as `stem`, where
      None means the model's default; also `dtype` of the compute (default
      float32) and `axis_name`, the device axis for BatchNorm statistics.

  Returns:
    A module; `module.apply(variables, x, train)` maps Float[b h w c] images to
    Float32[b k] logits. Its convolutions and BatchNorm have gradients of their
    own (`jax.custom_vjp`): reverse mode only (`grad`, `vjp`), and on a CPU
    second derivatives only with FER_JAX_KERNELS=off in the environment.

  Raises:
    UserError: the name or an option is unknown, or an option or the number of
      classes has another type or is out of range.

  >>> import fer_jax
  >>> fer_jax.create_model("resnet18", num_classes=7, stem="small").stem
  'small'
  """
  known = options_of(name)
  options = {key: value for key, value in options.items() if value is not None}
  for option, value in options.items():
    if option in known:
      kind = config_values.kind_of(*known[option])
      options[option] = config_values.typed(f"model.{option}", value, kind)
    elif option not in ("dtype", "axis_name"):
      raise UserError(
        f"unknown option {option!r} of model {name}: its options are"
        f" {', '.join(known) or 'none'}"
      )
  num_classes = config_values.typed("num_classes", num_classes, int)
  require(num_classes >= 1, "num_classes", num_classes, "be at least 1")
  dtype = options.get("dtype", jnp.float32)
  must = "be a floating-point type, such as float32 or bfloat16"
  require(_is_floating(dtype), "dtype", dtype, must)
  return MODELS[canonical_name(name)](num_classes=num_classes, **options)


def _is_floating(dtype: Any) -> bool:
  """Returns whether a value is a floating-point type, or the name of one."""
  try:
    return jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
  except TypeError:
    return False


def options_of(name: str) -> dict[str, Option]:
  """Returns the options of a model that a user may set, sorted by name.

  Args:
    name: a name that `list_models` returns, or an alias.

  Raises:
    UserError: the name is unknown.

  >>> options_of("alexnet")
  {'dropout': Option(type=<class 'float'>, default=0.0)}
  """
  parameters = inspect.signature(MODELS[canonical_name(name)]).parameters
  return {
    option: Option(parameters[option].annotation, parameters[option].default)
    for option in sorted(parameters.keys() - _INTERNAL_FIELDS)
  }
