"""Search spaces: fields of a configuration and their possible values.

A space is a file of `configs/sweeps/` whose `get_space()` returns a mapping
from fields, by dotted name, to their possible values:

    {
      "optimizer.name": Choice(("sgd", "adamw")),
      "optimizer.learning_rate": LogUniform(1e-5, 1e-2),
      "augment.rotation": Uniform(0.0, 20.0),
      "schedule.plateau_patience": Integer(2, 8, step=2),
      "num_epochs": 10,
    }

A plain value sets the field in every trial.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from fer_jax import config_fields
from fer_jax.errors import UserError

Point = dict[str, Any]  # a value for every searched field


@dataclasses.dataclass(frozen=True)
class Choice:
  """One of several values, of any type that a field has.

  Attributes:
    values: of which no two are equal, as 0 and 0.0 are.
  """

  values: tuple[Any, ...]

  def __post_init__(self) -> None:
    texts = [] if isinstance(self.values, str) else list(map(repr, self.values))
    _require(bool(texts), self, "name at least one value, as a tuple")
    equal = any(a == b for a, b in itertools.combinations(self.values, 2))
    once = len(set(texts)) == len(texts) and not equal
    _require(once, self, "name each value once (0, 0.0 and False are equal)")

  @property
  def ends(self) -> tuple[Any, ...]:
    """The values that are checked before the sweep starts."""
    return tuple(self.values)


@dataclasses.dataclass(frozen=True)
class Uniform:
  """A real number, uniformly distributed.

  Attributes:
    low: lower bound.
    high: upper bound.
  """

  low: float
  high: float

  def __post_init__(self) -> None:
    ok = _finite(self.low) and _finite(self.high) and self.low < self.high
    _require(ok, self, "be two numbers, low < high")

  @property
  def ends(self) -> tuple[Any, ...]:
    """The values that are checked before the sweep starts."""
    return float(self.low), float(self.high)


@dataclasses.dataclass(frozen=True)
class LogUniform(Uniform):
  """A real number whose logarithm is uniformly distributed."""

  def __post_init__(self) -> None:
    super().__post_init__()
    _require(self.low > 0, self, "have a low above 0; 0 is a Choice of its own")


@dataclasses.dataclass(frozen=True)
class Integer:
  """An integer of a range.

  Attributes:
    low: lower bound.
    high: upper bound; included if a whole number of steps leads to it.
    step: difference of adjacent values.
  """

  low: int
  high: int
  step: int = 1

  def __post_init__(self) -> None:
    whole = all(type(n) is int for n in (self.low, self.high, self.step))
    ok = whole and self.low < self.high and self.step >= 1
    _require(ok, self, "be integers, low < high and step at least 1")

  @property
  def values(self) -> range:
    """All values."""
    return range(self.low, self.high + 1, self.step)

  @property
  def ends(self) -> tuple[Any, ...]:
    """The values that are checked before the sweep starts."""
    return self.values[0], self.values[-1]


Parameter = Choice | Uniform | Integer


@dataclasses.dataclass(frozen=True)
class Space:
  """Searched fields and fixed ones.

  Attributes:
    parameters: searched fields by dotted name; each has two values or more.
    fixed: fields with the same value in every trial.
  """

  parameters: Mapping[str, Parameter]
  fixed: Mapping[str, Any]

  @classmethod
  def of(cls, fields: Mapping[str, Any], given: Mapping[str, Any]) -> "Space":
    """Separates the fields of a file into searched and fixed ones.

    Args:
      fields: the file's.
      given: fields that the user has set, which are not searched.
    """
    parameters, fixed = {}, {}
    for field, values in fields.items():
      if field in given:
        continue
      if not isinstance(values, Parameter):
        fixed[field] = values
      elif isinstance(values, Choice) and len(values.values) == 1:
        fixed[field] = values.values[0]
      else:
        parameters[field] = values
    return cls(parameters, fixed)

  @property
  def num_points(self) -> int | None:
    """Number of points; None if it is infinite.

    >>> Space.of({"seed": Integer(0, 4), "dtype": "float32"}, {}).num_points
    5
    """
    sizes = []
    for parameter in self.parameters.values():
      if isinstance(parameter, Uniform):
        return None
      sizes.append(len(parameter.values))
    return math.prod(sizes)

  def points(self) -> Iterator[Point]:
    """Yields all points of a finite space; the last field varies fastest."""
    values = []
    for parameter in self.parameters.values():
      assert not isinstance(parameter, Uniform)
      values.append(parameter.values)
    for combination in itertools.product(*values):
      yield dict(zip(self.parameters, combination, strict=True))

  def configure(self, config: ConfigDict, point: Point) -> ConfigDict:
    """Returns the configuration of a point.

    Raises:
      UserError: a field does not exist, or a value is not of its type.
    """
    configured = config.copy_and_resolve_references()
    return config_fields.set_fields(configured, {**self.fixed, **point})

  def describe(self) -> dict[str, str]:
    """Returns every field of the file as text."""
    every = {**self.parameters, **self.fixed}
    return {field: repr(values) for field, values in every.items()}


def format_point(point: Point) -> str:
  """Formats a point, with short names of fields.

  >>> format_point({"optimizer.learning_rate": 0.0001, "seed": 3})
  'learning_rate 0.0001, seed 3'
  """
  names = short_names(list(point))
  return ", ".join(
    f"{names[field]} {format_value(value)}" for field, value in point.items()
  )


def format_value(value: Any) -> str:
  """Formats a value.

  >>> format_value(0.000123456), format_value("sgd"), format_value(3)
  ('0.0001235', 'sgd', '3')
  """
  return f"{value:.4g}" if isinstance(value, float) else str(value)


def short_names(fields: list[str]) -> dict[str, str]:
  """Returns column names: the last part of a dotted name if it is unique.

  >>> list(short_names(["model.name", "a.seed", "b.seed"]).values())
  ['model', 'a.seed', 'b.seed']
  """
  short = {f: f.removesuffix(".name").rpartition(".")[2] for f in fields}
  ends = list(short.values())
  return {
    field: end if ends.count(end) == 1 else field
    for field, end in short.items()
  }


def _finite(number: Any) -> bool:
  real = isinstance(number, int | float) and not isinstance(number, bool)
  return real and math.isfinite(number)


def _require(ok: bool, parameter: Any, must: str) -> None:
  if not ok:
    raise UserError(f"{parameter} of the space must {must}")
