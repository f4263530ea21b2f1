"""Per-layer learning rates, as multiples of the run's."""

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
    text: "layer1:0.1,fc:10"; if two patterns match a parameter, the last one
      applies.
    groups: the model's layer groups.

  Returns:
    The factor of each matched parameter, by its path.

  Raises:
    UserError: the text has another form, or a pattern matches nothing.
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
    must = "be PATTERN:NUMBER,... with numbers above 0, as in layer1:0.1,fc:10"
    require(ok, field, text, must)
    found = layers.match(pattern.strip(), groups, field)
    factors |= dict.fromkeys(found, factor)
  return factors


def scale_by_path(factors: ByPath[float]) -> optax.GradientTransformation:
  """Multiplies the updates of some parameters.

  Args:
    factors: by parameter path; 1 for all others.

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
  """Returns the name, "fc/kernel", of a path in a tree of dictionaries."""
  return "/".join(str(key.key) for key in path)
