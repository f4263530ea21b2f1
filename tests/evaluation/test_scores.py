"""Tests of fer_jax.evaluation.scores and what stands under it."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from fer_jax.data.datasets import class_names as classes
from fer_jax.evaluation import intervals
from fer_jax.evaluation.calibration import calibrate
from fer_jax.evaluation.confusion import reorder
from fer_jax.evaluation.scores import score

NAMES = ("a", "b", "c", "d")


def predictions(
  seed: int, num_rows: int, num_classes: int = 4, hits: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
  """Probabilities that are right more often than not, and labels."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(num_classes, size=num_rows)
  logits = rng.normal(size=(num_rows, num_classes))
  logits[np.arange(num_rows), labels] += hits * rng.random(num_rows)
  odds = np.exp(logits)
  return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32), labels


many = given(seed=st.integers(0, 10**6), num_rows=st.integers(1, 60))


def test_a_case_by_hand():
  p = np.array(
    [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.2, 0.5, 0.3]]
  )
  found = score(p, np.array([0, 1, 2, 2]), "abc", num_bootstrap=0)
  assert found.num_images == 4 and found.class_names == ("a", "b", "c")
  assert found.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 1]]
  assert found.accuracy == 0.5
  assert found.top2_accuracy == 1.0
  assert found.balanced_accuracy == pytest.approx((1 + 0 + 0.5) / 3)
  assert found.loss == pytest.approx(-np.log([0.7, 0.3, 0.8, 0.3]).mean())
  rows = [0.09 + 0.04 + 0.01, 0.36 + 0.49 + 0.01, 0.06, 0.04 + 0.25 + 0.49]
  assert found.brier_score == pytest.approx(sum(rows) / 4)
  a, b, c = found.per_class
  assert (a.precision, a.recall, a.support) == (0.5, 1, 1)
  assert a.f1 == pytest.approx(2 / 3)
  assert (b.precision, b.recall, b.f1, b.accuracy) == (0, 0, 0, 0.5)
  assert (c.precision, c.recall, c.accuracy) == (1, 0.5, 0.75)
  assert found.macro.precision == pytest.approx(0.5)
  assert found.weighted.precision == pytest.approx((0.5 + 0 + 2 * 1) / 4)
  # Confidences 0.7, 0.6, 0.8 and 0.5; 0.6 and 0.8 are edges.
  gaps = [1 - 0.7, 0.6, 1 - 0.8, 0.5]
  assert found.calibration.error == pytest.approx(sum(gaps) / 4)
  assert [one.count for one in found.calibration.bins][7:12] == [1, 1, 0, 1, 1]
  assert found.intervals == {}


def test_votes_are_scored_as_distributions_and_by_the_most_voted():
  p = np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
  votes = np.array([[0.6, 0.4, 0.0], [0.0, 0.8, 0.2]])
  found = score(p, votes, "abc", num_bootstrap=10)
  expected = [
    -0.6 * math.log(0.5) - 0.4 * math.log(0.3),
    -0.8 * math.log(0.2) - 0.2 * math.log(0.6),
  ]
  assert found.loss == pytest.approx(np.mean(expected))
  assert found.brier_score == pytest.approx((0.06 + (0.04 + 0.36 + 0.16)) / 2)
  assert found.accuracy == 0.5
  assert found.confusion.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
  assert found.targets == "distributions" and "with the votes" in str(found)


@many
@settings(max_examples=30, deadline=None)
def test_scikit_learn_agrees(seed, num_rows):
  p, labels = predictions(seed, num_rows)
  found = score(p, labels, NAMES, num_bootstrap=0)
  predicted, present = p.argmax(axis=1), np.unique(labels)
  confusion = metrics.confusion_matrix(labels, predicted, labels=range(4))
  assert found.confusion.tolist() == confusion.tolist()
  by_class = metrics.precision_recall_fscore_support(
    labels, predicted, labels=range(4), zero_division=0
  )
  for one, *expected in zip(found.per_class, *by_class, strict=True):
    numbers = (one.precision, one.recall, one.f1, one.support)
    assert np.nan_to_num(numbers) == pytest.approx(expected)
  assert found.accuracy == pytest.approx(
    metrics.accuracy_score(labels, predicted)
  )
  assert found.top2_accuracy == pytest.approx(
    metrics.top_k_accuracy_score(labels, p, k=2, labels=range(4))
  )
  recall = metrics.recall_score(
    labels, predicted, labels=present, average="macro"
  )
  assert found.balanced_accuracy == pytest.approx(recall)
  exact = p.astype(np.float64)
  exact /= exact.sum(axis=1, keepdims=True)
  log_loss = metrics.log_loss(labels, exact, labels=range(4))
  assert found.loss == pytest.approx(log_loss, rel=1e-5)
  for average, means in (("macro", found.macro), ("weighted", found.weighted)):
    expected = metrics.precision_recall_fscore_support(
      labels, predicted, labels=present, average=average, zero_division=0
    )
    actual = (means.precision, means.recall, means.f1)
    assert actual == pytest.approx(expected[:3])


@many
@settings(max_examples=30, deadline=None)
def test_what_always_holds(seed, num_rows):
  p, labels = predictions(seed, num_rows)
  found = score(p, labels, NAMES, num_bootstrap=0)
  confusion = found.confusion
  assert confusion.sum() == found.num_images == num_rows
  assert found.weighted.recall == pytest.approx(found.accuracy)
  assert found.top2_accuracy >= found.accuracy
  for i, one in enumerate(found.per_class):
    assert one.support == confusion[i].sum()
    rest = np.delete(np.delete(confusion, i, axis=0), i, axis=1)
    rightly = confusion[i, i] + rest.sum()
    assert one.accuracy == pytest.approx(rightly / num_rows)
    assert math.isnan(one.recall) == math.isnan(one.f1) == (not one.support)
  assert sum(one.count for one in found.calibration.bins) == num_rows
  order = np.random.default_rng(seed).permutation(num_rows)
  shuffled = score(p[order], labels[order], NAMES, num_bootstrap=0)
  assert shuffled.confusion.tolist() == confusion.tolist()
  for name in ("loss", "brier_score", "accuracy", "top2_accuracy"):
    assert getattr(shuffled, name) == pytest.approx(getattr(found, name))
  assert shuffled.calibration.error == pytest.approx(found.calibration.error)


@many
@settings(max_examples=20, deadline=None)
def test_intervals_score_as_the_scores_do(seed, num_rows):
  p, labels = predictions(seed, num_rows)
  found = score(p, labels, NAMES, num_bootstrap=0)
  same = intervals.statistics(found.confusion[None])
  assert same["accuracy"][0] == pytest.approx(found.accuracy)
  assert same["balanced_accuracy"][0] == pytest.approx(found.balanced_accuracy)
  assert same["macro_f1"][0] == pytest.approx(found.macro.f1)


def test_json_survives_a_round_trip():
  p, labels = predictions(0, 50)
  labels[labels == 3] = 2  # no row of d
  plain = score(p, labels, NAMES, num_bootstrap=20).to_json()
  text = json.dumps(plain, allow_nan=False)
  assert json.loads(text) == plain
  d = plain["per_class"][3]
  assert (d["recall"], d["f1"], d["support"]) == (None, None, 0)
  assert d["precision"] == 0
  assert plain["calibration"]["bins"][0]["accuracy"] is None
  assert set(plain["intervals"]["loss"]) == {"low", "high"}


def test_intervals_hold_the_score_and_most_of_other_samples():
  p, labels = predictions(1, 3000)
  found = score(p, labels, NAMES)
  points = {
    "accuracy": found.accuracy,
    "balanced_accuracy": found.balanced_accuracy,
    "macro_f1": found.macro.f1,
    "loss": found.loss,
  }
  assert set(found.intervals) == set(points)
  for name, point in points.items():
    assert found.intervals[name].low < point < found.intervals[name].high
  # The normal approximation of a share is good at this size.
  error = math.sqrt(found.accuracy * (1 - found.accuracy) / 3000)
  interval = found.intervals["accuracy"]
  assert interval.high - interval.low == pytest.approx(3.92 * error, rel=0.1)
  again = score(p, labels, NAMES)
  other = score(p, labels, NAMES, seed=1)
  assert again.intervals == found.intervals != other.intervals


def test_resamples_are_drawn_a_part_at_a_time(monkeypatch):
  p, labels = predictions(2, 40)
  whole = score(p, labels, NAMES, num_bootstrap=101).intervals
  monkeypatch.setattr(intervals, "_MAX_DRAWN", 7 * 40)
  assert score(p, labels, NAMES, num_bootstrap=101).intervals == whole


def test_resamples_may_miss_a_class():
  p, labels = np.eye(3)[[0] * 20 + [1]], np.array([0] * 20 + [1])
  found = score(p, labels, "abc")
  # All is right, also where the one row of b, or c, is missing.
  assert found.intervals["macro_f1"] == intervals.Interval(1, 1)
  assert found.intervals["balanced_accuracy"] == intervals.Interval(1, 1)


def test_equal_probabilities_go_to_the_first_class():
  found = score(np.full((3, 4), 0.25), np.array([0, 1, 2]), NAMES)
  assert found.confusion[:, 0].tolist() == [1, 1, 1, 0]
  assert found.top2_accuracy == pytest.approx(2 / 3)


def test_a_probability_of_zero_has_a_finite_loss():
  found = score(np.eye(2), np.array([0, 0]), "ab", num_bootstrap=5)
  assert found.loss == pytest.approx(87.3365 / 2, rel=1e-4)
  assert math.isfinite(found.intervals["loss"].high)


def test_calibration_bins_hold_their_upper_edge():
  found = calibrate(np.array([1 / 15, 0.1, 1.0]), np.array([False, True, True]))
  counts = [one.count for one in found.bins]
  assert (len(counts), counts[0], counts[1], counts[14]) == (15, 1, 1, 1)
  assert found.bins[1].accuracy == 1 and found.bins[1].confidence == 0.1
  assert math.isnan(found.bins[2].accuracy)
  assert found.error == pytest.approx((1 / 15 + 0.9 + 0) / 3)


def test_reordered_as_papers_print_it():
  names = classes.FER2013_CLASSES
  p, labels = predictions(3, 200, num_classes=7)
  found = score(p, labels, names, num_bootstrap=0)
  order = sorted(names)
  assert [order.index(name) for name in ("neutral", "sad", "surprise")] == [
    *(4, 5, 6)
  ]
  there = np.array([order.index(name) for name in names])
  expected = metrics.confusion_matrix(there[labels], there[p.argmax(axis=1)])
  assert reorder(found.confusion, names, order).tolist() == expected.tolist()
  with pytest.raises(ValueError, match="order b, a is not a permutation"):
    reorder(found.confusion, names, ["b", "a"])


def test_the_table_says_every_number():
  p, labels = predictions(4, 1500)
  found = score(p, labels, ("angry", "sad", "happy", "neutral"))
  lines = str(found).splitlines()
  low, high = found.intervals["loss"].low, found.intervals["loss"].high
  cross_entropy = next(line for line in lines if "cross-entropy" in line)
  assert cross_entropy.split() == [
    "cross-entropy",
    f"{found.loss:.4f}",
    f"[{low:.4f},",
    f"{high:.4f}]",
  ]
  happy = found.per_class[2]
  assert next(line for line in lines if "happy" in line).split() == [
    "happy",
    f"{happy.precision:.2%}",
    f"{happy.recall:.2%}",
    f"{happy.f1:.2%}",
    f"{happy.accuracy:.2%}",
    str(happy.support),
  ]
  macro = next(line for line in lines if "macro average" in line)
  assert f"{found.macro.precision:.2%}" in macro and "1,500" in macro
  assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
  "probabilities, targets, message",
  [
    (np.full((2, 3), 1 / 3), [0, 1], r"probabilities of shape \(2, 3\)"),
    (np.zeros((0, 2)), np.zeros(0, int), r"probabilities of shape \(0, 2\)"),
    (np.array([0.5, 0.5]), [0], r"probabilities of shape \(2,\)"),
    ([[0.5, 0.5], [np.nan, 1]], [0, 1], "probabilities of example 1 .* finite"),
    ([[1.5, -0.5]], [0], "probabilities of example 0 .* logits.*: 1.5, -0.5"),
    (
      [[0.5, 0.5], [0.5, 0.4]],
      [0, 1],
      "of example 1 .* sum to 1",
    ),
    ([[0.5, 0.5]], [0, 1], "2 targets for 1 predictions"),
    ([[0.5, 0.5]], [2], r"targets 2 \.\. 2 where labels 0 \.\. 1"),
    ([[0.5, 0.5]], [-1], r"targets -1 \.\. -1"),
    ([[0.5, 0.5]], [0.0], "targets of type float64"),
    ([[0.5, 0.5]], [[0.5, 0.6]], "targets of example 0 do not sum to 1"),
    ([[0.5, 0.5]], [[1.0, 0, 0]], r"targets of shape \(1, 3\)"),
  ],
)
def test_what_cannot_be_scored_is_named(probabilities, targets, message):
  with pytest.raises(ValueError, match=message):
    score(np.asarray(probabilities), np.asarray(targets), "ab")


def test_sums_may_be_off_by_a_rounding():
  score(np.array([[0.5004, 0.5]]), np.array([0]), "ab", num_bootstrap=0)
  with pytest.raises(ValueError, match="num_bootstrap=-1"):
    score(np.array([[0.5, 0.5]]), np.array([0]), "ab", num_bootstrap=-1)
