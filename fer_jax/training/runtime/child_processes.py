"""Child processes that end together with the one that started them."""

import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from fer_jax.errors import Interrupted, UserError
from fer_jax.training.runtime.signals import StopRequest

_POLL_SECONDS = 0.2  # between looks at whether a signal was received
_LONGEST_FAILURE = 5000  # characters; a pipe holds 64 KiB until it is read
_MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"


class Ended(NamedTuple):
  """The end of a child process.

  Attributes:
    failure: why its function failed; "" if it returned.
    signal_number: of the signal that interrupted the function, or 0.
    exit_code: of a process that ended by itself, such as killed; else 0.
  """

  failure: str
  signal_number: int = 0
  exit_code: int = 0


def run_all(
  target: Callable[..., None],
  calls: Sequence[tuple[Any, ...]],
  count: int,
  deadline: float = math.inf,
  on_end: Callable[[int, Ended], None] = lambda index, ended: None,
) -> list[Ended]:
  """Calls a function in processes of their own, and waits for all.

  Args:
    target: a function of a module.
    calls: the arguments of each call.
    count: number of processes at once.
    deadline: when they are stopped, as by SIGTERM, in the time of
      `time.monotonic`; no other is started then.
    on_end: called with the index of each call that has ended, and how.

  Returns:
    The end of each call, in the order of `calls`.

  Raises:
    Interrupted: SIGINT or SIGTERM was received, and passed on to all; or the
      deadline stopped one; or every call that failed was interrupted.
  """
  count = min(count, len(calls))
  waiting, found = list(enumerate(calls)), {}
  running: dict[Any, tuple[int, Connection]] = {}
  with StopRequest(deadline) as stop_request:
    passed_on = False
    while running or (waiting and not stop_request):
      while waiting and len(running) < count and not stop_request:
        index, arguments = waiting.pop(0)
        process, receiver = _start(target, arguments, count)
        running[process] = index, receiver
      sentinels = [process.sentinel for process in running]
      multiprocessing.connection.wait(sentinels, _POLL_SECONDS)
      if stop_request and not passed_on:
        for process in running:
          process.terminate()
        passed_on = True
      for process in [each for each in running if not each.is_alive()]:
        index, receiver = running.pop(process)
        found[index] = _received(process, receiver)
        on_end(index, found[index])
  signals = [ended.signal_number for ended in found.values() if ended.failure]
  caught = max(signals, default=0) if all(signals) else 0
  if stop_request.signal_number or waiting or (passed_on and signals):
    caught = stop_request.cause
  if caught:
    raise Interrupted("interrupted; saved: rerun the command to resume", caught)
  return [found[index] for index in range(len(calls))]


def _start(
  target: Callable[..., None], arguments: tuple[Any, ...], count: int
) -> tuple[Any, Connection]:
  """Starts a child process; returns it, and where it sends its end.

  It ignores Ctrl-C: SIGTERM is passed on to it.
  """
  context = multiprocessing.get_context("spawn")
  receiver, sender = context.Pipe(duplex=False)
  process = context.Process(
    target=_child, args=(target, arguments, count, sender)
  )
  try:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  except ValueError:  # Not the main thread.
    before = None
  try:
    process.start()
  finally:
    if before is not None:
      signal.signal(signal.SIGINT, before)
  sender.close()  # The child has its own; if that is gone, nothing will come.
  return process, receiver


def _received(process: Any, receiver: Connection) -> Ended:
  """Returns the end of a process that runs no longer."""
  with receiver:
    try:
      return receiver.recv()
    except (EOFError, OSError):  # Nothing, or not all of it.
      code = process.exitcode
      return Ended(
        f"a process ended with status {code}, perhaps out of memory",
        exit_code=code,
      )


def _child(
  target: Callable[..., None],
  arguments: tuple[Any, ...],
  count: int,
  sender: Connection,
) -> None:
  """Runs in the child process; sends its end.

  The process ends by SIGTERM with its parent, and takes its part of a device's
  memory, of which each process takes most by default.
  """
  threading.Thread(target=_end_with_parent, daemon=True).start()
  os.environ.setdefault(_MEMORY, f"{0.9 / count:.2f}")
  try:
    target(*arguments)
  except Interrupted as e:
    sender.send(Ended(str(e)[:_LONGEST_FAILURE], e.exit_code - 128))
  except KeyboardInterrupt:
    sender.send(Ended("interrupted", signal.SIGINT))
  except UserError as e:
    sender.send(Ended(str(e)[:_LONGEST_FAILURE]))
  else:
    sender.send(Ended(""))


def _end_with_parent() -> None:
  """Ends this process by SIGTERM once its parent is gone."""
  parent = multiprocessing.parent_process()
  assert parent is not None
  multiprocessing.connection.wait([parent.sentinel])
  os.kill(os.getpid(), signal.SIGTERM)
