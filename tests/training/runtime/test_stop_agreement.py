"""Processes that stop at the same point, simulated by threads."""

import functools
import random
import threading
import time

import pytest

from fer_jax.training.runtime.stop_agreement import StopAgreement


class Simulated:
  """Processes of which none is ever more than one step ahead of another."""

  def __init__(self, count: int, seed: int):
    self.told: dict[int, str] = {}
    self.stopped: dict[int, int] = {}
    self.wants: dict[int, int] = {}
    self._random = random.Random(seed)
    self._barrier = threading.Barrier(count)
    self.agreements = [
      StopAgreement(functools.partial(self.told.__setitem__, i))
      for i in range(count)
    ]
    for i, agreement in enumerate(self.agreements):
      agreement.watch(functools.partial(self.wants.get, i))

  def train(self, index: int) -> None:
    """Takes steps until all processes stop."""
    step = 0
    while not self.agreements[index].pass_point(lambda: None):
      self._barrier.wait(10)  # a step of all processes
      step += 1
      time.sleep(self._random.random() / 1000)
    self.stopped[index] = step

  def poll(self, index: int) -> None:
    """Exchanges messages, as a thread of each process does."""
    while len(self.stopped) < len(self.agreements):
      time.sleep(self._random.random() / 500)
      self.agreements[index].update(dict(self.told), len(self.agreements))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("wants", [{1: 15}, {0: 2, 2: 1}, {2: 14}])
def test_all_stop_after_the_same_step(seed, wants):
  run = Simulated(3, seed)
  threads = [
    threading.Thread(target=f, args=(i,), daemon=True)
    for i in range(3)
    for f in (run.train, run.poll)
  ]
  for thread in threads:
    thread.start()
  time.sleep(random.Random(seed).random() / 50)
  run.wants.update(wants)
  for thread in threads:
    thread.join(20)
  assert len(run.stopped) == 3 and len(set(run.stopped.values())) == 1
  causes = {agreement.cause for agreement in run.agreements}
  assert len(causes) == 1 and causes <= set(wants.values())


def test_nobody_stops_if_nobody_wants_to():
  agreement = StopAgreement(lambda text: pytest.fail(text))
  for _ in range(5):
    agreement.update({}, 2)
    assert not agreement.pass_point(lambda: None)
  assert not agreement.is_reached()


def test_a_wait_for_the_others_ends_with_an_error():
  told: list[str] = []
  agreement = StopAgreement(told.append)
  agreement.watch(lambda: 15)
  agreement.update({}, 2)
  assert told == ["0 15"]

  def lost() -> None:
    raise ConnectionError

  with pytest.raises(ConnectionError):
    agreement.pass_point(lost)
