"""Targets from votes: what the rules say, on any votes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_jax.data.datasets import ferplus_votes


@st.composite
def ballots(draw):
  """Ten votes over ten columns, mostly on a few."""
  columns = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5))
  picks = draw(st.lists(st.sampled_from(columns), min_size=10, max_size=10))
  return np.bincount(picks, minlength=10)


def row(**counts):
  names = (
    "neutral happiness surprise sadness anger disgust fear contempt unknown nf"
  ).split()
  return np.array([counts.get(name, 0) for name in names])


@given(ballots(), st.sampled_from(sorted(ferplus_votes.MODES)))
def test_every_target_is_a_distribution(counts, mode):
  shares = ferplus_votes.MODES[mode](counts)
  assert shares.dtype == np.float32 and shares.shape == (10,)
  assert shares.min() >= 0
  np.testing.assert_allclose(shares.sum(), 1, rtol=1e-6)
  kept = ferplus_votes.expressions_only(shares)
  if kept is None:
    assert shares[8:].max() == shares.max()
  else:
    np.testing.assert_allclose(kept.sum(), 1, rtol=1e-6)


@given(ballots(), st.sampled_from(sorted(ferplus_votes.MODES)))
def test_only_columns_with_two_votes_or_more_count(counts, mode):
  shares = ferplus_votes.MODES[mode](counts)
  for column in np.flatnonzero(shares):
    assert counts[column] > 1 or column == ferplus_votes.UNKNOWN


@given(ballots())
def test_majority_is_more_than_half_of_what_is_no_outlier(counts):
  winner = ferplus_votes.majority(counts).argmax()
  clean = np.where(counts == 1, 0, counts)
  if clean.max() > clean.sum() / 2:
    assert winner == clean.argmax()
  else:
    assert winner == ferplus_votes.UNKNOWN


@given(ballots())
def test_more_votes_are_never_a_smaller_share(counts):
  shares = ferplus_votes.distribution(counts)
  taken = [c for c in range(8) if shares[c] > 0]
  for a in taken:
    for b in range(8):
      if counts[b] > counts[a]:
        assert shares[b] > shares[a]


@pytest.mark.parametrize(
  ("counts", "expected"),
  [
    (row(neutral=10), {0: 1.0}),
    (row(neutral=8, sadness=2), {0: 1.0}),  # three quarters are enough
    (row(neutral=6, sadness=4), {0: 0.6, 3: 0.4}),
    (row(neutral=5, sadness=3, fear=2), {0: 0.625, 3: 0.375}),
    (row(neutral=4, sadness=2, fear=2, anger=2), {8: 1.0}),  # four are taken
    (row(neutral=4, unknown=4, sadness=2), {8: 1.0}),  # 4 of 10 are taken
    (row(neutral=6, unknown=4), {0: 1.0}),
    (row(unknown=6, neutral=4), {8: 1.0}),
    (row(nf=8, neutral=2), {9: 1.0}),
    (row(neutral=1, sadness=1, fear=1), {8: 1.0}),  # outliers only
  ],
)
def test_distribution(counts, expected):
  shares = ferplus_votes.distribution(counts)
  given_shares = {int(c): float(shares[c]) for c in np.flatnonzero(shares)}
  assert given_shares == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
  ("counts", "expected"),
  [
    (row(neutral=3, sadness=7), {0: 0.3, 3: 0.7}),
    (row(neutral=8, sadness=2), {0: 1.0}),
    (row(neutral=4, sadness=3, unknown=3), {0: 0.4, 3: 0.3, 8: 0.3}),
    (row(unknown=5, neutral=5), {0: 0.5, 8: 0.5}),
    (row(unknown=6, neutral=4), {8: 1.0}),
    (row(neutral=3, anger=2, fear=2, disgust=2), {8: 1.0}),  # 3 of 9
  ],
)
def test_multi_target(counts, expected):
  shares = ferplus_votes.multi_target(counts)
  given_shares = {int(c): float(shares[c]) for c in np.flatnonzero(shares)}
  assert given_shares == pytest.approx(expected, rel=1e-6)


def test_a_smaller_unknown_is_shared_out():
  shares = ferplus_votes.multi_target(row(neutral=4, sadness=3, unknown=3))
  kept = ferplus_votes.expressions_only(shares)
  assert kept is not None
  np.testing.assert_allclose(kept[[0, 3]], [4 / 7, 3 / 7])


@given(
  st.lists(ballots(), max_size=4),
  st.sampled_from(sorted(ferplus_votes.MODES)),
  st.sampled_from([8, 10]),
)
def test_rows_are_targets_of_their_own(rows, mode, num_classes):
  counts = np.array(rows, int).reshape(-1, 10)
  targets, kept = ferplus_votes.targets(counts, mode, num_classes)
  assert len(targets) == len(kept) == len(rows)
  assert kept.all() or num_classes == 8
  for row, target, keep in zip(rows, targets, kept, strict=True):
    shares = ferplus_votes.MODES[mode](row)
    assert keep == (num_classes == 10 or shares.argmax() < 8)
    if keep and mode == "majority":
      assert target == shares.argmax()
    elif keep:
      expected = shares[:num_classes] / shares[:num_classes].sum()
      np.testing.assert_allclose(target, expected, rtol=1e-6)
