"""Processes that measure when they are asked to, and are still otherwise.

What is compared lives in processes of its own, since libraries take threads
and memory as they please; one is asked at a time, the others are stopped, so
nothing runs beside what is timed. Questions and answers are lines of JSON.
None outlives the process that started it, however that ends.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from fer_jax.errors import UserError

LINUX = sys.platform == "linux"
_PARENT = "FER_JAX_BENCHMARK"  # the variable that says who started a worker


class WorkerError(Exception):
  """A worker could not do what it was asked to; the message is one line."""


class Worker:
  """A process that `serve`s.

  Args:
    script: its file.
    argument: given to it, as JSON.
    environment: variables that it has beside ours.
    freeze: whether it is stopped while it is not asked (on Linux, where it is
      ended with us even so). Not for processes that must answer each other's
      signs of life.
    timeout: seconds that an answer may take.
  """

  def __init__(
    self,
    script: Path,
    argument: Any,
    environment: Mapping[str, str] | None = None,
    freeze: bool = True,
    timeout: float = 3600.0,
  ):
    self._freeze = freeze and LINUX
    self._timeout = timeout
    self._log = tempfile.TemporaryFile("w+", errors="replace")
    self._process = subprocess.Popen(
      [sys.executable, str(script), json.dumps(argument)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._log,
      text=True,
      env={**os.environ, **(environment or {}), _PARENT: str(os.getpid())},
    )

  @property
  def pid(self) -> int:
    """The process's number."""
    return self._process.pid

  def ask(self, what: str, **arguments: Any) -> Any:
    """Has a handler run, and waits for what it returns.

    Raises:
      WorkerError: it failed, took too long, or the process ended.
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
      WorkerError: it failed, took too long, or the process ended.
    """
    assert self._process.stdout
    too_late = threading.Event()

    def give_up() -> None:
      too_late.set()
      self._process.kill()

    timer = threading.Timer(self._timeout, give_up)
    timer.daemon = True
    timer.start()
    answer = self._process.stdout.readline()
    timer.cancel()
    if too_late.is_set():
      raise WorkerError(f"no answer in {self._timeout:g} s")
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
  """Ends all workers of a list, also those added to it in the meantime.

  SIGTERM, which would end this process at once, ends them too.
  """

  def leave(number: int, frame: Any) -> NoReturn:
    del frame
    raise SystemExit(128 + number)

  in_main = threading.current_thread() is threading.main_thread()
  before = signal.signal(signal.SIGTERM, leave) if in_main else None
  try:
    yield workers
  finally:
    for worker in workers:
      worker.close()
    if in_main:
      signal.signal(signal.SIGTERM, before)


def with_devices(count: int) -> dict[str, str]:
  """Variables for a process that is to see so many devices; {} for 0.

  Simulated ones on CPU, the first of those there are on NVIDIA GPUs.
  """
  if not count:
    return {}
  flag = f"--xla_force_host_platform_device_count={count}"
  visible = os.environ.get("CUDA_VISIBLE_DEVICES")
  every = visible.split(",") if visible else list(map(str, range(count)))
  return {
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip(),
    "CUDA_VISIBLE_DEVICES": ",".join(every[:count]),
  }


def serve(handlers: Mapping[str, Callable[..., Any]]) -> None:
  """Answers until the one who asks is gone.

  What handlers print goes to stderr.

  Args:
    handlers: by name; each returns what JSON can hold.
  """
  _end_with_parent()
  answers = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  for question in sys.stdin:
    what, arguments = json.loads(question)
    error, result = "", None
    try:
      result = handlers[what](**arguments)
    except ModuleNotFoundError as e:
      error = f"{e.name} is not installed"
    except UserError as e:
      error = str(e)
    except Exception as e:  # Whatever a library raises is told, in one line.
      error = f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
    print(json.dumps([error, result]), file=answers, flush=True)


def _end_with_parent() -> None:
  """Has Linux end this process with its parent, even while it is stopped."""
  if not LINUX:
    return
  pr_set_pdeathsig = 1
  ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
  if os.getppid() != int(os.environ.get(_PARENT, os.getppid())):
    sys.exit("who started this is gone")  # before that was asked for
