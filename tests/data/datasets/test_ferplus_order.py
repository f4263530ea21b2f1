"""Votes in another order than the images are noticed, right ones never."""

import numpy as np
import pytest

from fer_jax.data.datasets import ferplus_order


def make(n, agreement=0.62, seed=0):
  """Labels, and votes' labels that agree on a fraction of them."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 7, n)
  voted = np.where(rng.random(n) < agreement, labels, (labels + 1) % 7)
  voted[rng.random(n) < 0.1] = -1
  return labels, voted


@pytest.mark.parametrize("n", [0, 5, 130, 3000, 30_000])
def test_the_right_order_passes(n):
  for seed in range(5):
    assert ferplus_order.find_mismatch(*make(n, seed=seed)) is None


@pytest.mark.parametrize("n", [130, 3000])
@pytest.mark.parametrize("how", ["sorted", "shuffled", "shifted"])
def test_another_order_is_found(n, how):
  labels, voted = make(n)
  voted = {
    "sorted": np.sort(voted),
    "shuffled": np.random.default_rng(1).permutation(voted),
    "shifted": np.roll(voted, 1),
  }[how]
  found = ferplus_order.find_mismatch(labels, voted)
  assert found and found.agreement < 0.35 and 0.1 < found.chance < 0.2


def test_a_row_missing_in_the_middle_is_found_where_it_begins():
  labels, voted = make(6000)
  voted[3000:] = np.roll(voted[3000:], 1)
  found = ferplus_order.find_mismatch(labels, voted)
  assert found and 2400 < found.start <= 3000 + 600


def test_images_of_one_class_cannot_tell():
  labels = np.full(1000, 3)
  assert ferplus_order.find_mismatch(labels, labels[::-1].copy()) is None
