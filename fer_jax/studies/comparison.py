"""Compares recipes: means over seeds, intervals, paired tests."""

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
  """A quantity over several seeds.

  Attributes:
    values: one per seed.
  """

  values: tuple[float, ...]

  @property
  def mean(self) -> float:
    """Mean over seeds."""
    return float(np.mean(self.values))

  @property
  def std(self) -> float:
    """Standard deviation over seeds (n - 1); NaN for one seed."""
    if len(self.values) < 2:
      return float("nan")
    return float(np.std(self.values, ddof=1))

  def format(self, form: str, scale: float = 1.0) -> str:
    """Formats the mean, and the standard deviation of several seeds.

    >>> Figure((0.5, 0.6)).format(".1f", 100)
    '55.0 ± 7.1'
    """
    text = f"{scale * self.mean:{form}}"
    if len(self.values) > 1:
      text += f" ± {scale * self.std:{form}}"
    return text


@dataclasses.dataclass(frozen=True, eq=False)
class Versus:
  """A recipe compared with the baseline, on the examples that both predict.

  Those are the same images, byte for byte, at the same places of a split.

  Attributes:
    baseline: the baseline's name.
    difference: of mean accuracy over seeds.
    interval: 95 % interval of the difference, by resampling examples and seeds
      in pairs.
    p_images: p-value over the choice of images, by flipping the sign of each
      image's difference (for one seed, McNemar's test).
    p_seeds: p-value over seeds, by the paired t-test; None for fewer than two
      common seeds.
  """

  baseline: str
  difference: float
  interval: Interval
  p_images: float
  p_seeds: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
  """All seeds of a recipe.

  Attributes:
    name: its name in tables.
    outcomes: one per seed.
    versus: comparison with the baseline; None for the baseline itself, and
      where the two share no task, no examples or no seeds.
    is_baseline: whether the others are compared with it.
  """

  name: str
  outcomes: tuple[Outcome, ...]
  versus: Versus | None = None
  is_baseline: bool = False

  def figure(self, of: Callable[[Outcome], float]) -> Figure:
    """Returns a quantity of each seed."""
    return Figure(tuple(of(outcome) for outcome in self.outcomes))

  @property
  def interval(self) -> Interval:
    """95 % confidence interval of accuracy.

    For several seeds, Student's t over seeds; for one, the bootstrap over
    images.
    """
    from scipy import stats

    accuracy = self.figure(lambda one: one.scores.accuracy)
    n = len(accuracy.values)
    if n == 1:
      return self.outcomes[0].scores.intervals["accuracy"]
    reach = stats.t.ppf((1 + LEVEL) / 2, n - 1) * accuracy.std / n**0.5
    low, high = accuracy.mean - reach, accuracy.mean + reach
    return Interval(max(low, 0.0), min(high, 1.0))


def compare(outcomes: Sequence[Outcome], baseline: str = "") -> list[Recipe]:
  """Groups outcomes by recipe and compares each with the baseline.

  Args:
    outcomes: in order of recipes.
    baseline: a recipe's name; "" is the first recipe.

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
      f"baseline={baseline} is none of the recipes {', '.join(known)}"
    )
  return [
    dataclasses.replace(recipe, is_baseline=True)
    if recipe.name == baseline
    else dataclasses.replace(recipe, versus=_versus(recipe, known[baseline]))
    for recipe in recipes
  ]


def _versus(recipe: Recipe, baseline: Recipe) -> Versus | None:
  """Returns None if the two share no task, no examples or no seeds."""
  from scipy import stats

  pairs = [
    (one, other)
    for one in recipe.outcomes
    for other in baseline.outcomes
    if one.seed == other.seed and one.class_names == other.class_names
  ]
  if not pairs:
    return None
  examples = sorted(
    set.intersection(*(set(one.example_ids) for pair in pairs for one in pair))
  )
  if not examples:
    return None
  # [seed, example]: 1 if only the recipe is right, -1 if only the baseline.
  differences = np.stack(
    [_right(one, examples) - _right(other, examples) for one, other in pairs]
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
    p_images=sign_flip_test(differences.mean(axis=0), rng),
    p_seeds=p_seeds,
  )


def _right(
  outcome: Outcome, examples: Sequence[str]
) -> Float[np.ndarray, " n"]:
  positions = {example: i for i, example in enumerate(outcome.example_ids)}
  correct = outcome.correct[[positions[example] for example in examples]]
  return correct.astype(np.float64)


def _interval(
  differences: Float[np.ndarray, "s n"], rng: np.random.Generator
) -> Interval:
  """Returns the bootstrap interval of the mean over seeds and examples."""
  num_seeds, num_examples = differences.shape
  means = [
    differences[rng.integers(num_seeds, size=num_seeds)]
    .mean(axis=0)[rng.integers(num_examples, size=num_examples)]
    .mean()
    for _ in range(1_000)
  ]
  tail = 50 * (1 - LEVEL)
  low, high = np.percentile(means, (tail, 100 - tail))
  return Interval(float(low), float(high))


def sign_flip_test(
  differences: Float[np.ndarray, " n"], rng: np.random.Generator
) -> float:
  """Returns the two-sided p-value of a mean of paired differences.

  The signs of the differences are flipped at random.

  Args:
    differences: paired differences.
    rng: draws the signs.
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
