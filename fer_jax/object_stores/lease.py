"""One writer at a time for a folder on an object store.

Object stores have no locks. A process that wants to write puts an object of its
own into `.leases/`, lists that folder, and goes on only if no other process's
lease is alive: listings are consistent, so of two processes that start at the
same time at least one sees the other. A lease is alive while its holder keeps
rewriting it, which is watched rather than read from clocks, since those of two
machines may differ.
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from fer_jax.errors import UserError
from fer_jax.object_stores.objects import ObjectFolder, StoreError
from fer_jax.text_output import SafeStream

FOLDER = ".leases"
RENEW_SECONDS = 10.0
# A lease that is not renewed for so long is that of a process that was killed,
# or of a machine that is gone.
EXPIRE_SECONDS = 60.0
_POLL_SECONDS = 1.0


class HeldError(UserError):
  """Another process holds the lease."""


class Lease:
  """The right to write to a folder on an object store."""

  def __init__(self, folder: ObjectFolder):
    """Takes the lease, which is renewed by a thread until `release`.

    Args:
      folder: to be written.

    Raises:
      HeldError: another process does.
      StoreError: the folder cannot be read or written.
    """
    self._folder = folder
    self._name = f"{FOLDER}/{secrets.token_hex(8)}"
    self._count = 0
    self._renewed = time.monotonic()
    self._lost = False  # Another process has deleted the lease.
    self._ended = threading.Event()
    self._write()
    self._thread = threading.Thread(
      target=self._keep_renewing, name="lease", daemon=True
    )
    self._thread.start()
    try:
      for name in self._others():
        self._wait_for_end(name)
    except BaseException:
      self.release()
      raise

  def check(self) -> None:
    """Checks that no other process may have taken the folder over.

    Raises:
      UserError: this process could not renew its lease in time, and another
        process holds one now.
      StoreError: that cannot be found out.
    """
    is_late = time.monotonic() - self._renewed > EXPIRE_SECONDS / 2
    if is_late:
      self._renew()
    if is_late or self._lost:
      if others := self._others():
        raise self._held(others[0])

  def release(self) -> None:
    """Gives the lease up."""
    self._ended.set()
    self._thread.join()
    with contextlib.suppress(StoreError):
      self._folder.delete([self._name])

  def _keep_renewing(self) -> None:
    while not self._ended.wait(RENEW_SECONDS):
      with contextlib.suppress(StoreError):  # Tried again; see `check`.
        self._renew()

  def _renew(self) -> None:
    """Writes the lease again, unless another process has deleted it."""
    self._lost = self._lost or self._folder.read(self._name) is None
    if not self._lost:
      self._write()

  def _write(self) -> None:
    self._count += 1
    holder = {**_this_process(), "count": self._count}
    self._folder.write(self._name, json.dumps(holder).encode())
    self._renewed = time.monotonic()

  def _others(self) -> list[str]:
    names = [f"{FOLDER}/{name}" for name in (self._folder / FOLDER).list()]
    return [name for name in names if name != self._name]

  def _wait_for_end(self, name: str) -> None:
    """Waits until another lease has expired, and deletes it.

    Raises:
      UserError: it is being renewed.
    """
    first = self._read(name)
    if first and not _is_dead(first):
      SafeStream(sys.stderr).write(
        f"{self._folder.url} is in use by {_described(first)}, or was when that"
        f" process was killed: waiting up to {EXPIRE_SECONDS:.0f} s\n"
      )
      end = time.monotonic() + EXPIRE_SECONDS
      while time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
        now = self._read(name)
        if not now:
          return
        if now != first:
          raise self._held(name)
      self._folder.delete([name])
      time.sleep(_POLL_SECONDS)  # It may be being renewed right now.
      if self._read(name):
        raise self._held(name)
    self._folder.delete([name])

  def _read(self, name: str) -> dict[str, Any] | None:
    content = self._folder.read(name)
    if content is None:
      return None
    try:
      return dict(json.loads(content))
    except (ValueError, TypeError):
      return {"damaged": content.decode(errors="replace")}

  def _held(self, name: str) -> HeldError:
    return HeldError(
      f"another process is training in {self._folder.url}"
      f" ({_described(self._read(name) or {})}): wait for it, or use another"
      " workdir"
    )


@contextlib.contextmanager
def held(folder: ObjectFolder) -> Iterator[Lease]:
  """Holds the lease of a folder in a `with` block; see `Lease`."""
  lease = Lease(folder)
  try:
    yield lease
  finally:
    lease.release()


def _this_process() -> dict[str, Any]:
  return {"host": socket.gethostname(), "pid": os.getpid(), "on": _machine()}


def _machine() -> str:
  """Returns what identifies the processes that `os.kill` can see."""
  parts = []
  with contextlib.suppress(OSError):
    with open("/proc/sys/kernel/random/boot_id") as file:
      parts.append(file.read().strip())
    parts.append(os.readlink("/proc/self/ns/pid"))
  return " ".join(parts)


def _is_dead(holder: dict[str, Any]) -> bool:
  """Returns whether a holder was a process of this machine that has ended."""
  if not _machine() or holder.get("on") != _machine():
    return False
  try:
    os.kill(int(holder["pid"]), 0)
  except ProcessLookupError:
    return True
  except (OSError, KeyError, TypeError, ValueError):
    pass
  return False


def _described(holder: dict[str, Any]) -> str:
  return f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
