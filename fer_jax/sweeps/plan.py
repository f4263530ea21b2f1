"""The plan of a sweep, checked before anything trains."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax import config_fields, recipes, renamed_fields
from fer_jax.errors import UserError, choose
from fer_jax.sweeps.space import Parameter, Point, Space, Uniform
from fer_jax.training import config_check
from fer_jax.training.create_experiment import create_experiment

SAMPLERS = ("tpe", "grid", "random")
PRUNERS = ("median", "hyperband", "none")
TRIALS = "trials"  # folder of the trials' workdirs, in the sweep's


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """A sweep.

  Attributes:
    config: the configuration that all trials share.
    space: the fields that are searched.
    workdir: folder of the sweep.
    storage: Optuna's: a database URL, or the path of a journal.
    sampler: one of SAMPLERS.
    pruner: one of PRUNERS.
    num_trials: in total, finished ones included; None is all of the space.
  """

  config: ConfigDict
  space: Space
  workdir: pathlib.Path
  storage: str
  sampler: str
  pruner: str
  num_trials: int | None

  @property
  def metric(self) -> str:
    """The metric that is optimized: `best_metric` of the trials."""
    return str(self.space.fixed.get("best_metric", self.config.best_metric))

  @property
  def max_minutes(self) -> float:
    """The time limit of the sweep, as in configurations."""
    fixed = self.space.fixed.get("max_minutes", self.config.max_minutes)
    return float(fixed)

  @property
  def sign(self) -> int:
    """1 if the highest score is best, -1 if the lowest is."""
    return -1 if self.metric == "validation_loss" else 1

  @property
  def direction(self) -> Literal["maximize", "minimize"]:
    """The same in Optuna's terms."""
    return "maximize" if self.sign > 0 else "minimize"

  @property
  def goal(self) -> int:
    """Number of trials in total, at most."""
    ends = [self.num_trials, self.space.num_points]
    return min(end for end in ends if end is not None)

  @property
  def max_epochs(self) -> int:
    """Number of epochs of the longest trial."""
    epochs = self.space.parameters.get("num_epochs")
    if epochs:
      return int(max(epochs.ends))
    return int(self.space.fixed.get("num_epochs", self.config.num_epochs))

  def configure(self, point: Point) -> ConfigDict:
    """Returns the configuration of a point."""
    return self.space.configure(self.config, point)

  def folder(self, number: int) -> pathlib.Path:
    """Returns the workdir of a trial."""
    return self.workdir / TRIALS / f"{number:04d}"

  def to_child(self) -> dict[str, Any]:
    """Returns the plan in a form that can be sent to another process."""
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    return fields | {"config": configs.to_json(self.config)}

  @classmethod
  def from_child(cls, fields: dict[str, Any]) -> "Plan":
    """Returns the plan that `to_child` was called on."""
    return cls(**fields | {"config": configs.from_json(fields["config"])})


def plan(
  config: ConfigDict,
  space: str | os.PathLike[str] | Mapping[str, Any],
  given: Mapping[str, Any],
  workdir: pathlib.Path,
  *,
  storage: str = "",
  sampler: str = "tpe",
  pruner: str = "median",
  num_trials: int = 0,
) -> Plan:
  """Reads a search space and checks each of its fields and values.

  Args:
    config: the configuration that all trials share.
    space: as in `recipes.load_space`.
    given: fields that are set in every trial, and not searched.
    workdir: folder of the sweep.
    storage: a database URL or a journal's path; "" is a journal in the workdir.
    sampler: one of SAMPLERS.
    pruner: one of PRUNERS.
    num_trials: in total; 0 is all of a finite space.

  Raises:
    UserError: an argument, a field or a value is wrong.
  """
  choose("sampler", sampler, SAMPLERS)
  choose("pruner", pruner, PRUNERS)
  is_mapping = isinstance(space, Mapping)
  source = "the search space" if is_mapping else f"space={space}"
  fields = renamed_fields.upgrade(recipes.load_space(space), source)
  given = renamed_fields.upgrade(given, "fixed")
  config = config.copy_and_resolve_references()
  config_fields.set_fields(config, given)
  searched = Space.of(fields, given)
  for field, values in fields.items():
    _check_field(config, field, values)
  if metrics := searched.parameters.get("best_metric"):
    raise UserError(
      f"best_metric cannot be searched, {metrics}, as trials are compared by"
      " it: give one value"
    )
  for field, parameter in searched.parameters.items():
    infinite = isinstance(parameter, Uniform)
    if infinite and sampler == "grid":
      raise UserError(
        f"sampler=grid cannot enumerate {field}, {parameter}: use sampler=tpe,"
        " or a Choice"
      )
    if infinite and not num_trials:
      raise UserError(
        f"the number of trials is missing: {field}, {parameter}, has infinitely"
        " many values: give a number, such as 20"
      )
  planned = Plan(
    config,
    searched,
    workdir,
    storage or str(workdir / "trials.journal"),
    sampler,
    pruner,
    num_trials or None,
  )
  for point in _neighbours(searched):
    config_check.check(planned.configure(point))
  return planned


def check_experiments(planned: Plan) -> None:
  """Creates the experiment of every value once: data, model, schedules.

  Datasets are prepared and weights are downloaded here, before several
  processes would do so. Once this has passed, a trial whose own experiment
  cannot be created has a wrong combination of values if this still passes, and
  missing data, weights or disk space if it does not.

  Raises:
    UserError: the configuration or the dataset is wrong.
  """
  for i, point in enumerate(_neighbours(planned.space)):
    parts = create_experiment(planned.configure(point))
    if i == 0 or "init_from" in point:
      parts.read_initial_weights()


def _neighbours(space: Space) -> Iterator[Point]:
  """Yields a point, and for every other value one that differs in it only."""
  first = {field: values.ends[0] for field, values in space.parameters.items()}
  yield first
  for field, values in space.parameters.items():
    for value in values.ends[1:]:
      yield {**first, field: value}


def _check_field(config: ConfigDict, field: str, values: Any) -> None:
  """Checks that the field exists and accepts the values.

  Raises:
    UserError: it does not.
  """
  parameter = isinstance(values, Parameter)
  for value in values.ends if parameter else (values,):
    trial = config.copy_and_resolve_references()
    try:
      config_fields.set_fields(trial, {str(field): value})
    except UserError as e:
      raise UserError(f"the search space: {e}") from e
