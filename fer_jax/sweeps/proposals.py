"""Which point is tried next: never one that was tried before."""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import (
  BaseDistribution,
  CategoricalDistribution,
  FloatDistribution,
  IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from fer_jax.sweeps.plan import Plan
from fer_jax.sweeps.space import (
  Choice,
  LogUniform,
  Parameter,
  Point,
  Space,
  Uniform,
)

# Of a Bayesian search: random points before it learns from them.
_NUM_RANDOM = 4
_NUM_DRAWS = 50  # before a point that was not tried is taken without drawing


def propose(plan: Plan, begun: Sequence[FrozenTrial]) -> Point:
  """A point that no trial has.

  What is drawn depends on the configuration's seed, and on the trials.

  Args:
    plan: whose space has such a point.
    begun: all trials.
  """
  tried = {_key(plan.space, trial.params) for trial in begun}
  if plan.sampler != "grid":
    scratch = _scratch(plan, begun)
    distributions = {
      field: distribution(parameter)
      for field, parameter in plan.space.parameters.items()
    }
    for _ in range(_NUM_DRAWS):
      # What was drawn counts as running there: it is less likely drawn again.
      params = scratch.ask(distributions).params
      if _key(plan.space, params) not in tried:
        return to_point(plan.space, params)
  return next(
    point
    for point in plan.space.points()
    if _key(plan.space, _to_params(plan.space, point)) not in tried
  )


def as_trial(space: Space, point: Point) -> FrozenTrial:
  """A point as a trial of optuna's that runs."""
  return create_trial(
    state=TrialState.RUNNING,
    params=_to_params(space, point),
    distributions={
      field: distribution(parameter)
      for field, parameter in space.parameters.items()
    },
  )


def to_point(space: Space, params: dict[str, Any]) -> Point:
  """The point that parameters of optuna's stand for."""
  point = {}
  for field, parameter in space.parameters.items():
    value = params[field]
    if isinstance(parameter, Choice):
      value = next(v for v in parameter.values if _stored(v) == value)
    point[field] = value
  return point


def distribution(parameter: Parameter) -> BaseDistribution:
  """What optuna draws a field's value from."""
  if isinstance(parameter, Choice):
    return CategoricalDistribution([_stored(v) for v in parameter.values])
  if isinstance(parameter, Uniform):
    log = isinstance(parameter, LogUniform)
    return FloatDistribution(parameter.low, parameter.high, log=log)
  low, high = parameter.ends
  return IntDistribution(low, high, step=parameter.step)


def _scratch(plan: Plan, begun: Sequence[FrozenTrial]) -> optuna.Study:
  """A study in memory that knows all trials, to draw from."""
  seed = plan.config.seed + 1_000_003 * len(begun)
  sampler: optuna.samplers.BaseSampler
  if plan.sampler == "tpe":
    # Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization".
    sampler = optuna.samplers.TPESampler(
      n_startup_trials=_NUM_RANDOM,
      multivariate=True,
      constant_liar=True,
      seed=seed % 2**32,
    )
  else:
    sampler = optuna.samplers.RandomSampler(seed=seed % 2**32)
  study = optuna.create_study(sampler=sampler, direction=plan.direction)
  study.add_trials(begun)
  return study


def _to_params(space: Space, point: Point) -> dict[str, Any]:
  return {
    field: _stored(point[field])
    if isinstance(parameter, Choice)
    else point[field]
    for field, parameter in space.parameters.items()
  }


def _stored(value: Any) -> Any:
  """A choice as storages keep it: what JSON lacks is text."""
  plain = value is None or isinstance(value, bool | int | float | str)
  return value if plain else repr(value)


def _key(space: Space, params: dict[str, Any]) -> tuple[Any, ...]:
  return tuple(params[field] for field in space.parameters)
