"""Recipes compared: differences, intervals and tests; their tables."""

import dataclasses

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.studies import (
  comparison,
  run_results,
  study_report,
)
from fer_jax.tables import Table


def outcome(correct, seed=0, recipe="a", num_rows=None):
  """An outcome that is right where it is said to be."""
  correct = np.asarray(correct)
  n = len(correct)
  return run_results.Outcome(
    recipe=recipe,
    seed=seed,
    class_names=("x", "y"),
    probabilities=np.where(correct[:, None], [[0.9, 0.1]], [[0.2, 0.8]]).astype(
      np.float32
    ),
    targets=np.zeros(n, int),
    example_ids=np.array([f"test {i}" for i in range(n)]),
    leaks=np.zeros(n, bool),
    epochs=[[{"epoch": 1, "train_loss": 1.0, "validation_loss": 2.0}]],
    best_epochs=[1],
    num_parameters=10,
    macs=10,
    seconds=60.0,
    images_per_second=100.0,
    workdirs=[],
  )


def test_the_best_epoch_is_found_among_those_evaluated():
  one = outcome([True])
  one.epochs[:] = [[{"epoch": 3, "loss": 1.0}, {"epoch": 6, "loss": 0.5}]]
  one.best_epochs[:] = [6]
  assert one.at_best("loss") == 0.5


def test_the_paired_test_agrees_with_mcnemar():
  """Exact: 2 * P(X >= 15), X binomial of 20 coins, is 0.0414."""
  left = np.zeros(100, bool)
  left[:15] = True
  right = np.zeros(100, bool)
  right[15:20] = True
  _, new = comparison.compare(
    [outcome(right, recipe="base"), outcome(left, recipe="new")]
  )
  versus = new.versus
  assert versus is not None
  assert versus.difference == pytest.approx(0.10)
  assert versus.p_images == pytest.approx(0.0414, abs=0.008)
  assert versus.p_seeds is None
  low, high = versus.interval.low, versus.interval.high
  # Normal approximation: 0.10 +- 1.96 * sqrt((0.20 - 0.10 ** 2) / 100).
  assert low == pytest.approx(0.0146, abs=0.02)
  assert high == pytest.approx(0.1854, abs=0.02)


def test_equal_outcomes_do_not_differ():
  one = outcome([True, False, True])
  _, other = comparison.compare([one, outcome([True, False, True], recipe="b")])
  assert other.versus is not None
  assert other.versus.difference == 0
  assert other.versus.p_images == 1


def test_seeds_are_tested_in_pairs():
  """Gains of 10, 20 and 30 %: t = 3.464 on two degrees of freedom."""
  base = [outcome(np.arange(10) < 3, seed, "base") for seed in range(3)]
  new = [outcome(np.arange(10) < 4 + s, s, "new") for s in range(3)]
  _, recipe = comparison.compare([*base, *new])
  assert recipe.versus is not None
  assert recipe.versus.p_seeds == pytest.approx(0.0742, abs=1e-4)
  assert recipe.interval.low == pytest.approx(
    0.5 - 4.3027 * 0.1 / 3**0.5, abs=1e-4
  )


def test_an_interval_of_an_accuracy_stays_within_it():
  seeds = [outcome(np.arange(10) < 8 + seed, seed) for seed in range(2)]
  (recipe,) = comparison.compare(seeds)
  assert (recipe.interval.low, recipe.interval.high) == (
    pytest.approx(0.85 - 12.706 * 0.05, abs=1e-3),
    1.0,
  )


def test_recipes_of_other_classes_are_not_tested_against():
  base = outcome([True, False], recipe="base")
  other = outcome([True, False], recipe="other")
  object.__setattr__(other, "class_names", ("x", "z"))
  assert comparison.compare([base, other])[1].versus is None


def test_recipes_without_common_images_are_named():
  base = outcome([True, False], recipe="base")
  same = outcome([True, True], recipe="same")
  other = outcome([True, False], recipe="other")
  other.example_ids[:] = ["test 8", "test 9"]
  found = comparison.compare([base, same, other])
  assert "Not compared with the baseline: other (" in study_report.notes(found)
  assert "Not compared" not in study_report.notes(found[:2])


def test_without_leak_free_images_all_are_counted():
  one = outcome([True, False])
  assert one.leak_free_accuracy == 0.5
  one.leaks[0] = True
  assert dataclasses.replace(one).leak_free_accuracy == 0
  one.leaks[1] = True
  assert dataclasses.replace(one).leak_free_accuracy == 0.5


def test_a_baseline_must_be_a_recipe():
  with pytest.raises(UserError, match="baseline=b is none of the recipes a"):
    comparison.compare([outcome([True, False])], "b")


def test_markdown_lines_up():
  table = Table("t", "A title", ("recipe", "n"), (("a", "1"), ("bcd", "20")))
  assert table.to_markdown() == (
    "A title\n\n"
    "| recipe |  n |\n"
    "| ------ | -: |\n"
    "| a      |  1 |\n"
    "| bcd    | 20 |\n"
  )
  assert table.to_csv() == "recipe,n\na,1\nbcd,20\n"


def test_class_names_break_neither_markdown_nor_csv():
  table = Table("t", "", ("a|b\n", "=1+1"), (("+1.5 [-1.0, 2.0]", "-"),))
  assert table.to_markdown().splitlines()[2].startswith("| a\\|b\\x0a ")
  assert table.to_csv() == 'a|b\\x0a,\'=1+1\n"+1.5 [-1.0, 2.0]",-\n'
