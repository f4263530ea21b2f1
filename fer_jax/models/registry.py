"""Every model by its name."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from fer_jax.errors import UserError, choose
from fer_jax.models import resnet

MODELS: dict[str, Callable[..., nn.Module]] = {
  name: functools.partial(resnet.ResNet, stage_sizes=sizes, block=block)
  for name, (sizes, block) in resnet.DEPTHS.items()
}

# Set by the package, not by a user's options.
_INTERNAL = {"parent", "name", "num_classes", "dtype", "axis_name"}


def available() -> list[str]:
  """The names `create` takes."""
  return sorted(MODELS)


def create(name: str, num_classes: int, **options: Any) -> nn.Module:
  """Makes a model.

  Args:
    name: one of `available()`.
    num_classes: outputs.
    **options: fields of that model, such as `stem`; `dtype` and `axis_name`.

  Returns:
    A module; `module.apply(variables, x, train)` maps Float[b h w c] images to
    Float32[b k] logits.

  Raises:
    UserError: the name or an option is unknown.
  """
  make = MODELS[choose("model", name, MODELS)]
  known = _options(make)
  for option in options:
    if option not in known | _INTERNAL:
      raise UserError(
        f"unknown option {option!r} of model {name}: it has"
        f" {', '.join(sorted(known)) or 'none'}"
      )
  return make(num_classes=num_classes, **options)


def _options(make: Callable[..., nn.Module]) -> set[str]:
  """The fields a user may set: those neither internal nor bound already."""
  bound = make.keywords if isinstance(make, functools.partial) else {}
  return set(inspect.signature(make).parameters) - _INTERNAL - set(bound)
