"""The processes of a distributed run: who is alive, and what they agree on.

They exchange small messages through the key-value store of JAX's coordination
service, in a thread that polls it a few times a second. Training itself waits
for nothing: `agree_to_stop` looks at a variable.
"""

import json
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src import distributed  # The client has no public accessor.
from jax.experimental import multihost_utils

from fer_jax.errors import Diverged, Interrupted, UserError
from fer_jax.text_output import SafeStream
from fer_jax.training.runtime.stop_agreement import StopAgreement

T = TypeVar("T")
Tree = Any  # a tree of arrays

HEARTBEAT_TIMEOUT = 30.0  # seconds without a heartbeat until a process is lost
_EXIT_SECONDS = 3.0  # for the main thread to end by itself
# Errors of collective operations whose partner is gone.
_COLLECTIVE = re.compile(
  r"gloo|nccl|peer|collective|heartbeat|barrier|coordination|UNAVAILABLE",
  re.IGNORECASE,
)


class ProcessGroup:
  """The processes of a run; entered for as long as it trains.

  A process that is lost, or leaves with an error, ends the others with one
  line that names it. With one process nothing is exchanged.

  Attributes:
    index: number of this process.
    count: number of processes.
    is_first: whether this process reads and writes the workdir.
    stop: where all of them stop.
    lost: says which process is lost, and how; "" while all are there.
  """

  _num_groups = 0  # that this process has entered, equal in all of them

  def __init__(self) -> None:
    """Exchanges nothing yet."""
    self.index, self.count = jax.process_index(), jax.process_count()
    self.is_first = self.index == 0
    self.lost = ""
    self._timeout = HEARTBEAT_TIMEOUT
    # A coordinator answers some 100 requests per second at the most.
    self._interval = max(0.2, self.count / 100)
    self.stop = StopAgreement(lambda text: self._put("hold", text))
    self._num_shared = 0
    self._num_meetings = 0  # that this process has come to
    self._met = 0  # the last one that all have come to
    self._all_done = threading.Event()
    self._closed = threading.Event()

  def __enter__(self) -> "ProcessGroup":
    if self.count > 1:
      ProcessGroup._num_groups += 1
      self._folder = f"fer_jax/{ProcessGroup._num_groups}"
      self._client: Any = distributed.global_state.client
      self._put("member", f"{socket.gethostname()}, process id {os.getpid()}")
      threading.Thread(
        target=self._poll, daemon=True, name="process group"
      ).start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    if self.count == 1:
      return
    try:
      if error is None or isinstance(error, Interrupted | Diverged):
        self._put("done", "1")  # All of them end this way, together.
        while not self._all_done.wait(0.2):
          self._raise_if_lost()
        return
      if not isinstance(error, UserError) and _COLLECTIVE.search(str(error)):
        # Another process is gone; heartbeats tell which.
        for _ in range(int(10 * (self._timeout + _EXIT_SECONDS))):
          self._raise_if_lost()
          time.sleep(0.1)
      self._raise_if_lost()
      self._put("left", f"{type(error).__name__}: {error}"[:500])
      if self.is_first:  # Its end is that of the key-value store.
        time.sleep(1 + 2 * self._interval)
    finally:
      self._closed.set()

  def share(self, make: Callable[[], T]) -> T:
    """Returns in every process what the first one makes.

    Args:
      make: is called in the first process; its result can be written as JSON.
    """
    if self.count == 1:
      return make()
    self._num_shared += 1
    key = f"{self._folder}_shared/{self._num_shared}"
    if self.is_first:
      value = make()
      self._client.key_value_set(key, json.dumps(value))
      return value
    return json.loads(self._wait_for(key))

  def share_arrays(self, tree: Tree, like: Tree) -> Tree:
    """Returns in every process the arrays of the first one, bit by bit.

    Args:
      tree: host arrays; only those of the first process are read.
      like: arrays of the same structure, shapes and types, in every process.
    """
    if self.count == 1:
      return tree
    self.meet()
    leaves, structure = jax.tree.flatten(like)
    arrays = [np.asarray(x) for x in leaves]
    if self.is_first:
      given = jax.tree.leaves(tree)
      data = b"".join(
        np.asarray(x, like.dtype).tobytes()
        for x, like in zip(given, arrays, strict=True)
      )
    else:
      data = bytes(sum(x.nbytes for x in arrays))
    words = np.frombuffer(data + bytes(-len(data) % 4), np.uint32)
    shared = np.asarray(multihost_utils.broadcast_one_to_all(words)).tobytes()
    found, start = [], 0
    for x in arrays:
      part = shared[start : start + x.nbytes]
      found.append(np.frombuffer(part, x.dtype).reshape(x.shape).copy())
      start += x.nbytes
    return jax.tree.unflatten(structure, found)

  def first_then_others(self, make: Callable[[], T]) -> T:
    """Calls a function in every process, first in the first one.

    What it writes for all (a prepared dataset) is written once.
    """
    made = make() if self.is_first else None
    self.share(lambda: True)
    return make() if made is None else made

  def meet(self, wait: Callable[[], None] = lambda: None) -> None:
    """Waits until all processes are here.

    Before the first collective operation: gloo's partners connect within 30 s
    or fail, and compiling takes one process longer than another.

    Args:
      wait: is called several times a second; what it raises ends the wait.
    """
    if self.count == 1:
      return
    self._num_meetings += 1
    self._put("met", str(self._num_meetings))
    while self._met < self._num_meetings:
      wait()
      self._raise_if_lost()
      time.sleep(0.05)

  def agree_to_stop(self) -> bool:
    """Returns whether all processes stop here; see `StopAgreement`."""
    return self.stop.pass_point(self._raise_if_lost)

  def end(self, message: str) -> None:
    """Notes what was lost; ends the process unless the main thread does."""
    if self.lost:
      return
    self.lost = message
    if not self._closed.wait(_EXIT_SECONDS):
      stream = SafeStream(sys.stderr)
      stream.write(f"error: {message}\n")
      stream.flush()
      os._exit(1)

  def _raise_if_lost(self) -> None:
    if self.lost:
      raise UserError(self.lost)

  def _put(self, name: str, value: str) -> None:
    key = f"{self._folder}/{name}/{self.index}"
    self._client.key_value_set(key, value, allow_overwrite=True)

  def _wait_for(self, key: str) -> str:
    while True:
      try:
        return self._client.blocking_key_value_get(key, 1000)
      except jax.errors.JaxRuntimeError as e:
        if "DEADLINE_EXCEEDED" not in str(e):
          raise
        self._raise_if_lost()

  def _poll(self) -> None:
    """Sends heartbeats and reads those of others, until the group is left."""
    heard: dict[int, tuple[str, float]] = {}  # heartbeat, when it changed
    next_beat = answered = time.monotonic()
    while not self._closed.wait(self._interval):
      now = time.monotonic()
      try:
        if now >= next_beat:
          self._put("beat", str(now))
          next_beat = now + self._timeout / 15
        found = self._read()
        answered = time.monotonic()
        self._check_members(found, heard)
        self.stop.update(found.get("hold", {}), self.count)
        met = [int(number) for number in found.get("met", {}).values()]
        self._met = min(met) if len(met) == self.count else 0
      except jax.errors.JaxRuntimeError:
        if time.monotonic() - answered > self._timeout:
          self.end(coordinator_lost())

  def _read(self) -> dict[str, dict[int, str]]:
    """Returns all messages: kind -> process -> text."""
    found: dict[str, dict[int, str]] = {}
    for key, value in self._client.key_value_dir_get(self._folder + "/"):
      _, _, kind, index = key.rsplit("/", 3)
      found.setdefault(kind, {})[int(index)] = value
    return found

  def _check_members(
    self,
    found: dict[str, dict[int, str]],
    heard: dict[int, tuple[str, float]],
  ) -> None:
    done = found.get("done", {})
    if len(done) == self.count:
      self._all_done.set()
    now = time.monotonic()
    for index, member in found.get("member", {}).items():
      name = f"process {index} of {self.count} ({member})"
      if reason := found.get("left", {}).get(index):
        if index != self.index:
          self.end(f"{name} ended: {reason}")
      beat = found.get("beat", {}).get(index, "")
      if index not in heard or heard[index][0] != beat:
        heard[index] = beat, now
      elif now - heard[index][1] > self._timeout and index not in done:
        self.end(
          f"{name} is lost: no heartbeat for {self._timeout:.0f} s. {_RESUME}"
        )


def coordinator_lost() -> str:
  """Says that process 0 is gone, which coordinates the others."""
  return (
    "process 0, the coordinator, is lost: it ended or cannot be reached."
    f" {_RESUME}"
  )


_RESUME = "Run the same command again to resume from the last checkpoint"
