"""Folds by subject: whole subjects, balanced, and drawn by the seed alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.data.datasets.subject_folds import subject_folds
from fer_jax.errors import UserError


def like_ckplus():
  """327 sequences of 118 subjects, 1 to 6 each, in CK+'s classes."""
  rng = np.random.default_rng(0)
  labels = rng.permutation(np.repeat(range(7), (45, 18, 59, 25, 69, 28, 83)))
  numbers = np.concatenate([range(118), rng.integers(0, 118, 327 - 118)])
  return [f"S{n:03}" for n in numbers], labels.tolist()


@settings(max_examples=40, deadline=None)
@given(
  rows=st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 4)), min_size=1, max_size=60
  ),
  num_folds=st.integers(2, 6),
  seed=st.integers(0, 2**32 - 1),
)
def test_every_subject_is_in_one_fold_and_no_fold_is_empty(
  rows, num_folds, seed
):
  subjects = [f"S{subject:03}" for subject, _ in rows]
  labels = [label for _, label in rows]
  if len(set(subjects)) < num_folds:
    with pytest.raises(UserError, match=f"num_folds={num_folds} needs as many"):
      subject_folds(subjects, labels, num_folds, seed)
    return
  folds = subject_folds(subjects, labels, num_folds, seed)
  assert len(set(zip(subjects, folds.tolist(), strict=True))) == len(
    set(subjects)
  )
  assert set(folds.tolist()) == set(range(num_folds))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_folds_are_balanced_in_size_and_class(seed):
  subjects, labels = like_ckplus()
  folds = subject_folds(subjects, labels, 10, seed)
  sizes = np.bincount(folds)
  assert sizes.min() >= 31 and sizes.max() <= 35  # 32.7 each, were it exact
  table = np.zeros((10, 7), int)
  np.add.at(table, (folds, labels), 1)
  exact = np.bincount(labels) / 10
  assert np.abs(table - exact).max() < 2.5


def test_the_seed_alone_decides():
  subjects, labels = like_ckplus()
  folds = subject_folds(subjects, labels, 10, 0)
  np.testing.assert_array_equal(folds, subject_folds(subjects, labels, 10, 0))
  assert (folds != subject_folds(subjects, labels, 10, 1)).any()
  order = np.random.default_rng(0).permutation(len(subjects))
  shuffled = subject_folds(
    [subjects[i] for i in order], [labels[i] for i in order], 10, 0
  )
  np.testing.assert_array_equal(shuffled, folds[order])
