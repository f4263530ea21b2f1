"""The next point of a sweep, by Optuna's samplers: never a tried one."""

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

# Bayesian search draws this many points at random before it learns from them.
_NUM_STARTUP_TRIALS = 4
# Draws before a point that was not tried is taken without drawing.
_NUM_DRAWS = 50


def next_trial(plan: Plan, trials: Sequence[FrozenTrial]) -> FrozenTrial:
  """Returns a trial that waits for a worker, at a point that no trial has.

  The point depends on the configuration's seed and on the trials alone.

  Args:
    plan: of the sweep; its space has such a point.
    trials: all trials so far.
  """
  distributions = to_distributions(plan.space)
  tried = [trial.params for trial in trials]
  if plan.sampler != "grid":
    # Drawing is done in memory: what was drawn counts as running there, so
    # that it is less likely to be drawn again.
    draws = optuna.create_study(
      sampler=_sampler(plan, len(trials)), direction=plan.direction
    )
    draws.add_trials(trials)
    for _ in range(_NUM_DRAWS):
      params = draws.ask(distributions).params
      if params not in tried:
        return _waiting(params, distributions)
  params = next(
    params
    for point in plan.space.points()
    if (params := _to_params(plan.space, point)) not in tried
  )
  return _waiting(params, distributions)


def to_point(space: Space, params: dict[str, Any]) -> Point:
  """Returns the point that Optuna's parameters stand for."""
  point = {}
  for field, parameter in space.parameters.items():
    value = params[field]
    if isinstance(parameter, Choice):
      value = next(v for v in parameter.values if _to_stored(v) == value)
    point[field] = value
  return point


def to_distributions(space: Space) -> dict[str, BaseDistribution]:
  """Returns what Optuna draws the value of every field from."""
  return {f: _to_distribution(p) for f, p in space.parameters.items()}


def _to_distribution(parameter: Parameter) -> BaseDistribution:
  if isinstance(parameter, Choice):
    return CategoricalDistribution([_to_stored(v) for v in parameter.values])
  if isinstance(parameter, Uniform):
    log = isinstance(parameter, LogUniform)
    return FloatDistribution(parameter.low, parameter.high, log=log)
  low, high = parameter.ends
  return IntDistribution(low, high, step=parameter.step)


def _sampler(plan: Plan, num_trials: int) -> optuna.samplers.BaseSampler:
  seed = (plan.config.seed + 1_000_003 * num_trials) % 2**32
  if plan.sampler == "random":
    return optuna.samplers.RandomSampler(seed=seed)
  # Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization".
  return optuna.samplers.TPESampler(
    n_startup_trials=_NUM_STARTUP_TRIALS,
    multivariate=True,
    constant_liar=True,
    seed=seed,
  )


def _waiting(
  params: dict[str, Any], distributions: dict[str, BaseDistribution]
) -> FrozenTrial:
  return create_trial(
    state=TrialState.WAITING, params=params, distributions=distributions
  )


def _to_params(space: Space, point: Point) -> dict[str, Any]:
  return {
    field: _to_stored(point[field])
    if isinstance(parameter, Choice)
    else point[field]
    for field, parameter in space.parameters.items()
  }


def _to_stored(value: Any) -> Any:
  """Returns a choice as storages keep it: as text what JSON cannot hold."""
  plain = value is None or isinstance(value, bool | int | float | str)
  return value if plain else repr(value)
