"""Every model by its name."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from fer_jax.errors import UserError, choose
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
  name: functools.partial(BiResNet, blocks=blocks)
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

# Set by the package or the table above, not by a user's options.
_INTERNAL = {
  "parent",
  "name",
  "num_classes",
  "dtype",
  "axis_name",
  "stage_sizes",
  "block",
}


def available() -> list[str]:
  """The names `create` takes."""
  return sorted(MODELS)


def create(name: str, num_classes: int, **options: Any) -> nn.Module:
  """Makes a model.

  Args:
    name: one of `available()`.
    num_classes: outputs.
    **options: fields of that model, such as `stem`, of which None is the
      model's own default; `dtype` and `axis_name`.

  Returns:
    A module; `module.apply(variables, x, train)` maps Float[b h w c] images to
    Float32[b k] logits.

  Raises:
    UserError: the name or an option is unknown.
  """
  make = MODELS[choose("model", name, MODELS)]
  options = {key: value for key, value in options.items() if value is not None}
  known = options_of(name)
  for option in options:
    if option not in [*known, "dtype", "axis_name"]:
      raise UserError(
        f"unknown option {option!r} of model {name}: it has"
        f" {', '.join(known) or 'none'}"
      )
  return make(num_classes=num_classes, **options)


def options_of(name: str) -> list[str]:
  """The options of a model that a user may set."""
  return sorted(set(inspect.signature(MODELS[name]).parameters) - _INTERNAL)
