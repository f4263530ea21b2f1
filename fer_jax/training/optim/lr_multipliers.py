"""Learning rates of some layers, as multiples of the run's."""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import optax

from fer_jax.errors import require
from fer_jax.models import layer_groups as layers

T = TypeVar("T")
ByPath = Mapping[str, T]  # path of a parameter ("fc/kernel") -> value


def read(text: str, groups: layers.Groups) -> dict[str, float]:
  """Reads `optimizer.lr_multipliers`.

  Args:
    text: "layer1:0.1,fc:10"; of a parameter that two patterns mean, the last
      holds.
    groups: of the model.

  Returns:
    By the path of each parameter that is named.

  Raises:
    UserError: it is no such text, or a pattern matches nothing.
  """
  field = "optimizer.lr_multipliers"
  factors: dict[str, float] = {}
  for part in filter(None, map(str.strip, text.split(","))):
    pattern, _, number = part.rpartition(":")
    try:
      factor = float(number)
    except ValueError:
      factor = math.nan
    ok = bool(pattern) and 0 < factor < math.inf
    must = "be PATTERN:NUMBER,... of numbers above 0, as in layer1:0.1,fc:10"
    require(ok, field, text, must)
    found = layers.match(pattern.strip(), groups, field)
    factors |= dict.fromkeys(found, factor)
  return factors


def scale_by_path(factors: ByPath[float]) -> optax.GradientTransformation:
  """Multiplies the updates of some parameters.

  Args:
    factors: by the path of a parameter; 1 where there is none.

  >>> double = scale_by_path({"fc/bias": 2.0})
  >>> updates = {"conv1": {"bias": 1.0}, "fc": {"bias": 1.0}}
  >>> double.update(updates, double.init(updates))[0]
  {'conv1': {'bias': 1.0}, 'fc': {'bias': 2.0}}
  """

  def scale(path: tuple[Any, ...], update: Any) -> Any:
    factor = factors.get(name_of(path), 1.0)
    return update if factor == 1.0 else factor * update

  return optax.stateless(
    lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates)
  )


def name_of(path: tuple[Any, ...]) -> str:
  """The name, "fc/kernel", of a place in a tree of dictionaries."""
  return "/".join(str(key.key) for key in path)
