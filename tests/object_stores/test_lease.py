"""Two machines that want the same folder of an object store."""

import contextlib
import threading
import time

import pytest

from fer_jax.object_stores import lease
from fer_jax.object_stores.lease import HeldError, Lease
from fer_jax.object_stores.objects import ObjectFolder, StoreError


class Network(ObjectFolder):
  """A folder that one machine can lose."""

  is_down = False

  def read(self, name: str) -> bytes | None:
    """Reads, if there is a network."""
    self._check()
    return super().read(name)

  def write(self, name: str, content: bytes) -> None:
    """Writes, if there is a network."""
    self._check()
    super().write(name, content)

  def _check(self) -> None:
    if self.is_down:
      raise StoreError("no network")


@pytest.fixture
def folder(memory_store, monkeypatch) -> Network:
  monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
  monkeypatch.setattr(lease, "EXPIRE_SECONDS", 0.8)
  monkeypatch.setattr(lease, "_POLL_SECONDS", 0.05)
  monkeypatch.setattr(lease, "_is_dead", lambda holder: False)
  return Network(f"{memory_store}/run")


def test_a_lease_that_is_renewed_is_respected(folder):
  with lease.held(folder) as first:
    with pytest.raises(HeldError, match="another process is training"):
      Lease(ObjectFolder(folder.url))
    first.check()


@pytest.mark.parametrize("renewals", [0, 3])
def test_who_was_away_too_long_is_refused(folder, renewals):
  first = Lease(folder)
  folder.is_down = True
  second = Lease(ObjectFolder(folder.url))  # It waits until then.
  folder.is_down = False
  time.sleep(renewals * lease.RENEW_SECONDS)  # The thread may be first to look.
  with pytest.raises(HeldError, match="another process is training"):
    first.check()
  time.sleep(2 * lease.RENEW_SECONDS)
  with pytest.raises(HeldError):
    first.check()
  second.check()
  first.release()
  second.release()


def test_who_comes_back_in_time_keeps_the_folder(folder):
  first = Lease(folder)
  folder.is_down = True
  refused = []

  def take_over() -> None:
    with contextlib.suppress(HeldError):
      refused.append(Lease(ObjectFolder(folder.url)))

  thread = threading.Thread(target=take_over)
  thread.start()
  time.sleep(lease.EXPIRE_SECONDS / 3)
  folder.is_down = False
  thread.join()
  assert not refused
  first.check()
  first.release()
