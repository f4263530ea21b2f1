"""Processes that measure when they are asked to, and are still otherwise.

What is compared lives in processes of its own, since libraries take threads
and memory as they please; one is asked at a time, the others are stopped, so
nothing runs beside what is timed. Questions and answers are lines of JSON.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fer_jax.errors import UserError


class WorkerError(Exception):
  """A worker could not do what it was asked to; the message is one line."""


class Worker:
  """A process that `serve`s.

  Args:
    script: its file.
    argument: given to it, as JSON.
    environment: variables that it has beside ours.
    freeze: whether it is stopped while it is not asked. Not for processes that
      must answer each other's signs of life.
  """

  def __init__(
    self,
    script: Path,
    argument: Any,
    environment: Mapping[str, str] | None = None,
    freeze: bool = True,
  ):
    self._freeze = freeze and hasattr(signal, "SIGSTOP")
    self._log = tempfile.TemporaryFile("w+", errors="replace")
    self._process = subprocess.Popen(
      [sys.executable, str(script), json.dumps(argument)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._log,
      text=True,
      env={**os.environ, **(environment or {})},
    )

  def ask(self, what: str, **arguments: Any) -> Any:
    """Has a handler run, and waits for what it returns.

    Raises:
      WorkerError: it failed, or the process ended.
    """
    self.send(what, **arguments)
    return self.receive()

  def send(self, what: str, **arguments: Any) -> None:
    """Has a handler run."""
    self._signal("SIGCONT")
    assert self._process.stdin
    with contextlib.suppress(BrokenPipeError):  # `receive` tells why.
      self._process.stdin.write(json.dumps([what, arguments]) + "\n")
      self._process.stdin.flush()

  def receive(self) -> Any:
    """Waits for what the handler returns.

    Raises:
      WorkerError: it failed, or the process ended.
    """
    assert self._process.stdout
    answer = self._process.stdout.readline()
    if not answer:
      raise WorkerError(self._last_words())
    self._signal("SIGSTOP")
    error, result = json.loads(answer)
    if error:
      raise WorkerError(error)
    return result

  def close(self) -> None:
    """Ends the process."""
    self._process.kill()
    self._process.wait()
    for file in (self._process.stdin, self._process.stdout, self._log):
      if file:
        with contextlib.suppress(BrokenPipeError):
          file.close()

  def _signal(self, name: str) -> None:
    if self._freeze and self._process.poll() is None:
      self._process.send_signal(getattr(signal, name))

  def _last_words(self) -> str:
    status = self._process.wait()
    self._log.seek(0)
    lines = self._log.read().strip().splitlines() or [f"status {status}"]
    return lines[-1].strip()


@contextlib.contextmanager
def ended(workers: list[Worker]) -> Iterator[list[Worker]]:
  """Ends all workers of a list, also those added to it in the meantime."""
  try:
    yield workers
  finally:
    for worker in workers:
      worker.close()


def serve(handlers: Mapping[str, Callable[..., Any]]) -> None:
  """Answers until the one who asks is gone.

  What handlers print goes to stderr.

  Args:
    handlers: by name; each returns what JSON can hold.
  """
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  for question in sys.stdin:
    what, arguments = json.loads(question)
    error, result = "", None
    try:
      result = handlers[what](**arguments)
    except UserError as e:
      error = str(e)
    except Exception as e:  # Whatever a library raises is told, in one line.
      error = f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
    print(json.dumps([error, result]), file=answers, flush=True)
