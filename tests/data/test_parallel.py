"""Threads that work ahead: in order, bounded, errors where they belong."""

import threading
import time

import pytest

from fer_jax.data.parallel import map_in_order


def test_results_are_in_order_and_work_ahead_is_bounded():
  taken, threads = [], set()

  def items():
    for i in range(50):
      taken.append(i)
      yield i

  def slow(i):
    threads.add(threading.get_ident())
    time.sleep(0.002 * (i % 3))
    return i

  for n, result in enumerate(map_in_order(slow, items(), 3)):
    assert result == n
    assert len(taken) <= n + 1 + 2 * 3
  assert len(taken) == 50 and len(threads) > 1


def test_an_error_comes_after_the_results_before_it():
  def check(i):
    if i == 3:
      raise ValueError("three")
    return i

  found = []
  with pytest.raises(ValueError, match="three"):
    for i in map_in_order(check, range(9), 2):
      found.append(i)
  assert found == [0, 1, 2]


def test_a_consumer_may_leave():
  results = map_in_order(lambda i: i, range(10**9), 2)
  assert next(results) == 0
  results.close()
  assert threading.active_count() < 20
