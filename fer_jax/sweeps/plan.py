"""What a sweep is to do, checked before anything trains."""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax import config_fields, recipes, renamed_fields
from fer_jax.errors import UserError, choose
from fer_jax.sweeps.space import Parameter, Point, Space, Uniform
from fer_jax.training import config_check, experiment

SAMPLERS = ("tpe", "grid", "random")
PRUNERS = ("median", "hyperband", "none")
TRIALS = "trials"  # the folder of trials' workdirs, in the sweep's


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
  """A sweep.

  Attributes:
    config: what all trials share.
    space: what they do not.
    workdir: where everything goes.
    storage: of optuna: a URL, or a journal's file.
    sampler: one of SAMPLERS.
    pruner: one of PRUNERS.
    num_trials: in all, those done before included; None is all of the space.
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
    """What is searched for the best of: `config.best_metric`."""
    return str(self.config.best_metric)

  @property
  def sign(self) -> int:
    """1 where the highest score is best, -1 where the lowest is."""
    return -1 if self.metric == "validation_loss" else 1

  @property
  def direction(self) -> Literal["maximize", "minimize"]:
    """The same in optuna's words."""
    return "maximize" if self.sign > 0 else "minimize"

  @property
  def goal(self) -> int:
    """How many trials there will be in all, at most."""
    ends = [self.num_trials, self.space.num_points]
    return min(end for end in ends if end is not None)

  @property
  def max_epochs(self) -> int:
    """Of any trial."""
    epochs = self.space.parameters.get("num_epochs")
    if epochs:
      return int(max(epochs.ends))
    return int(self.space.fixed.get("num_epochs", self.config.num_epochs))

  def configure(self, point: Point) -> ConfigDict:
    """The configuration of a point."""
    return self.space.configure(self.config, point)

  def folder(self, number: int) -> pathlib.Path:
    """The workdir of a trial."""
    return self.workdir / TRIALS / f"{number:04d}"

  def to_child(self) -> dict[str, Any]:
    """What another process can be given."""
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    return fields | {"config": configs.to_json(self.config)}

  @classmethod
  def from_child(cls, fields: dict[str, Any]) -> "Plan":
    """What `to_child` made."""
    return cls(**fields | {"config": configs.from_json(fields["config"])})


def plan(
  config: ConfigDict,
  space_file: str,
  given: Mapping[str, Any],
  workdir: pathlib.Path,
  *,
  storage: str = "",
  sampler: str = "tpe",
  pruner: str = "median",
  num_trials: int = 0,
) -> Plan:
  """Reads a space and checks each of its fields and values by itself.

  Args:
    config: what all trials share.
    space_file: a space of configs/sweeps/ by name, or a file; ":CHOICE" may
      follow.
    given: fields set on the command line, which are not searched.
    workdir: where everything goes.
    storage: of optuna: a URL or a file; "" is a journal in the workdir.
    sampler: one of SAMPLERS.
    pruner: one of PRUNERS.
    num_trials: in all; 0 is all of a space that ends.

  Raises:
    UserError: something in these is wrong.
  """
  choose("sampler", sampler, SAMPLERS)
  choose("pruner", pruner, PRUNERS)
  fields = recipes.load_space(space_file)
  fields = renamed_fields.upgrade(fields, f"space={space_file}")
  space = Space.of(fields, given)
  for field, values in fields.items():
    _check_field(config, field, values)
  for field, parameter in space.parameters.items():
    endless = isinstance(parameter, Uniform)
    if endless and sampler == "grid":
      raise UserError(
        f"sampler=grid cannot go through all of {field}, {parameter}: give"
        " sampler=tpe, or a Choice"
      )
    if endless and not num_trials:
      raise UserError(
        f"num_trials is missing: {field}, {parameter}, has infinitely many"
        " values: give a number, such as num_trials=20"
      )
  planned = Plan(
    config,
    space,
    workdir,
    storage or str(workdir / "trials.journal"),
    sampler,
    pruner,
    num_trials or None,
  )
  for point in _neighbours(space):
    config_check.check(planned.configure(point))
  return planned


def check_experiments(planned: Plan) -> None:
  """Builds, once for every value, what a run of it needs: data, schedules.

  Data sets are prepared and weights downloaded here, before several processes
  would.

  Raises:
    UserError: something in the configuration or the data set is wrong.
  """
  for i, point in enumerate(_neighbours(planned.space)):
    parts = experiment.create_experiment(planned.configure(point))
    if i == 0 or "init_from" in point:
      parts.read_initial_weights()


def _neighbours(space: Space) -> Iterator[Point]:
  """A point, and for every other value one that differs in it alone."""
  first = {field: values.ends[0] for field, values in space.parameters.items()}
  yield first
  for field, values in space.parameters.items():
    for value in values.ends[1:]:
      yield {**first, field: value}


def _check_field(config: ConfigDict, field: str, values: Any) -> None:
  """Checks that there is such a field, and that it takes such values.

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
