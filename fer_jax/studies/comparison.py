"""Recipes side by side: means over seeds, intervals, paired tests."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from fer_jax.errors import UserError
from fer_jax.evaluation.intervals import LEVEL, Interval
from fer_jax.studies.run_results import Outcome

_NUM_RESAMPLES = 9_999


@dataclasses.dataclass(frozen=True)
class Figure:
  """A number of several seeds.

  Attributes:
    values: of each seed.
  """

  values: tuple[float, ...]

  @property
  def mean(self) -> float:
    """Over seeds."""
    return float(np.mean(self.values))

  @property
  def std(self) -> float:
    """Standard deviation over seeds (n - 1); nan of one seed."""
    if len(self.values) < 2:
      return float("nan")
    return float(np.std(self.values, ddof=1))

  def format(self, form: str, scale: float = 1.0) -> str:
    """The mean, and the deviation where there is one.

    >>> Figure((0.5, 0.6)).format(".1f", 100)
    '55.0 ± 7.1'
    """
    text = f"{scale * self.mean:{form}}"
    if len(self.values) > 1:
      text += f" ± {scale * self.std:{form}}"
    return text


@dataclasses.dataclass(frozen=True, eq=False)
class Versus:
  """A recipe against the baseline, in the rows that both predict.

  Attributes:
    baseline: its name.
    difference: of mean accuracy over seeds.
    interval: of the difference, by resampling rows and seeds in pairs.
    p_rows: of the difference being chance of the rows alone, by flipping the
      sign of each row's difference (for one seed, McNemar's test).
    p_seeds: of it being chance of the seeds alone, paired t-test; None of
      fewer than two common seeds.
  """

  baseline: str
  difference: float
  interval: Interval
  p_rows: float
  p_seeds: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
  """All seeds of a recipe.

  Attributes:
    name: in tables.
    outcomes: one a seed.
    versus: against the baseline; None for the baseline itself.
  """

  name: str
  outcomes: tuple[Outcome, ...]
  versus: Versus | None = None

  def figure(self, of: Callable[[Outcome], float]) -> Figure:
    """A number of each seed."""
    return Figure(tuple(of(outcome) for outcome in self.outcomes))

  @property
  def interval(self) -> Interval:
    """Of accuracy, 95 %.

    Of several seeds, Student's t over seeds; of one, the bootstrap over rows.
    """
    from scipy import stats

    accuracy = self.figure(lambda one: one.scores.accuracy)
    n = len(accuracy.values)
    if n == 1:
      return self.outcomes[0].scores.intervals["accuracy"]
    reach = stats.t.ppf((1 + LEVEL) / 2, n - 1) * accuracy.std / n**0.5
    return Interval(accuracy.mean - reach, accuracy.mean + reach)


def compare(outcomes: Sequence[Outcome], baseline: str = "") -> list[Recipe]:
  """Puts outcomes together by recipe, and each against the baseline.

  Args:
    outcomes: in order of recipes.
    baseline: a recipe's name; "" is the first.

  Raises:
    UserError: there is no such recipe.
  """
  recipes = [
    Recipe(name, tuple(group))
    for name, group in itertools.groupby(outcomes, lambda one: one.recipe)
  ]
  known = {recipe.name: recipe for recipe in recipes}
  baseline = baseline or recipes[0].name
  if baseline not in known:
    raise UserError(
      f"--baseline={baseline} is none of the recipes {', '.join(known)}"
    )
  return [
    recipe
    if recipe.name == baseline
    else dataclasses.replace(recipe, versus=_versus(recipe, known[baseline]))
    for recipe in recipes
  ]


def _versus(recipe: Recipe, baseline: Recipe) -> Versus | None:
  """None where the two share no task, no rows or no seeds."""
  from scipy import stats

  pairs = [
    (one, other)
    for one in recipe.outcomes
    for other in baseline.outcomes
    if one.seed == other.seed and one.class_names == other.class_names
  ]
  if not pairs:
    return None
  rows = sorted(
    set.intersection(*(set(one.rows) for pair in pairs for one in pair))
  )
  if not rows:
    return None
  # [seed, row]: 1 where only the recipe is right, -1 where only the baseline.
  differences = np.stack(
    [_right(one, rows) - _right(other, rows) for one, other in pairs]
  )
  rng = np.random.default_rng(0)
  p_seeds = None
  by_seed = differences.mean(axis=1)
  if len(pairs) > 1 and np.ptp(by_seed) > 0:
    p_seeds = float(stats.ttest_1samp(by_seed, 0).pvalue)
  return Versus(
    baseline=baseline.name,
    difference=float(differences.mean()),
    interval=_interval(differences, rng),
    p_rows=sign_flip_test(differences.mean(axis=0), rng),
    p_seeds=p_seeds,
  )


def _right(outcome: Outcome, rows: Sequence[str]) -> Float[np.ndarray, " n"]:
  places = {row: i for i, row in enumerate(outcome.rows)}
  return outcome.correct[[places[row] for row in rows]].astype(np.float64)


def _interval(
  differences: Float[np.ndarray, "s n"], rng: np.random.Generator
) -> Interval:
  """The middle 95 % of the mean, seeds and rows drawn anew."""
  num_seeds, num_rows = differences.shape
  means = [
    differences[rng.integers(num_seeds, size=num_seeds)]
    .mean(axis=0)[rng.integers(num_rows, size=num_rows)]
    .mean()
    for _ in range(1_000)
  ]
  tail = 50 * (1 - LEVEL)
  low, high = np.percentile(means, (tail, 100 - tail))
  return Interval(float(low), float(high))


def sign_flip_test(
  differences: Float[np.ndarray, " n"], rng: np.random.Generator
) -> float:
  """Two-sided p of a mean this far from 0 were every sign a coin's.

  Args:
    differences: paired.
    rng: of the coins.
  """
  differences = differences[differences != 0]
  if not len(differences):
    return 1.0
  observed, extreme, left = abs(differences.sum()), 0, _NUM_RESAMPLES
  while left:
    count = min(left, 500)
    signs = rng.choice((-1.0, 1.0), (count, len(differences)))
    extreme += int((abs(signs @ differences) >= observed - 1e-9).sum())
    left -= count
  return (extreme + 1) / (_NUM_RESAMPLES + 1)
