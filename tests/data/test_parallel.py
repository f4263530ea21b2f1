"""Threads that work ahead: in order, bounded, errors where they belong."""

import subprocess
import sys
import threading
import time

import pytest
from waiting import wait_until

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


def test_closing_cancels_pending_items_and_waits_for_the_others():
  before, calls = threading.active_count(), []
  released = threading.Event()
  release = threading.Timer(0.3, released.set)  # While `close` waits.

  def block(i):
    calls.append(i)
    if i:  # Items 1 and 2 keep both threads busy; 3 and 4 are pending.
      released.wait(20)
    return i

  results = map_in_order(block, range(10**9), 2)
  assert next(results) == 0
  wait_until(lambda: len(calls) == 3)
  release.start()
  results.close()
  assert released.is_set()
  release.join()
  assert sorted(calls) == [0, 1, 2]
  assert threading.active_count() == before


def test_a_process_may_end_before_its_results_are_taken():
  code = """
from fer_jax.data.parallel import map_in_order
results = map_in_order(str, range(10**9), 2)
print(next(results))
"""
  ended = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True
  )
  assert (ended.returncode, ended.stdout, ended.stderr) == (0, "0\n", "")
