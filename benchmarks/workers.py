"""Worker processes that measure on request and are stopped otherwise.

Each compared variant runs in a separate process, since libraries start their
own threads and allocate their own memory. One process is active at a time and
the others are stopped, so that nothing disturbs the timing. Requests and
responses are JSON, one per line. Workers end with their parent process.
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
_PARENT = (
  "FER_JAX_BENCHMARK"  # environment variable with the process id of the parent
)


class WorkerError(Exception):
  """A worker could not handle a request; the message is one line."""


class NotInstalled(WorkerError):
  """A module that a worker needs is not installed."""


class Worker:
  """A process that calls `serve`.

  Args:
    script: file of the process.
    argument: its argument, passed as JSON.
    environment: additional environment variables.
    freeze: whether to stop it between requests (on Linux); False for processes
      that exchange heartbeats.
    timeout: maximum seconds until a response.
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
    """Id of the process."""
    return self._process.pid

  def ask(self, what: str, **arguments: Any) -> Any:
    """Calls a handler and returns its result.

    Raises:
      WorkerError: it failed, took too long, or the process ended.
    """
    self.send(what, **arguments)
    return self.receive()

  def send(self, what: str, **arguments: Any) -> None:
    """Calls a handler without waiting for its result."""
    self._signal("SIGCONT")
    assert self._process.stdin
    with contextlib.suppress(BrokenPipeError):  # `receive` raises the reason.
      self._process.stdin.write(json.dumps([what, arguments]) + "\n")
      self._process.stdin.flush()

  def receive(self) -> Any:
    """Waits for the result of the handler.

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
    response = self._process.stdout.readline()
    timer.cancel()
    if too_late.is_set():
      raise WorkerError(f"no response in {self._timeout:g} s")
    if not response:
      raise WorkerError(self._last_line_of_log())
    self._signal("SIGSTOP")
    error, is_missing, result = json.loads(response)
    if error:
      raise (NotInstalled if is_missing else WorkerError)(error)
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

  def _last_line_of_log(self) -> str:
    status = self._process.wait()
    self._log.seek(0)
    lines = self._log.read().strip().splitlines() or [f"status {status}"]
    return lines[-1].strip()


@contextlib.contextmanager
def ended(workers: list[Worker]) -> Iterator[list[Worker]]:
  """Ends all workers of a list, including those added in the context.

  They are also ended when this process receives SIGTERM.
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
  """Returns environment variables for a number of devices; {} for 0.

  The devices are simulated on CPU, and the first ones on NVIDIA GPUs.
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
  """Handles requests until standard input is closed.

  The output of handlers is redirected to stderr.

  Args:
    handlers: functions by name, which return JSON values.
  """
  _end_with_parent()
  responses = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)
  for request in sys.stdin:
    what, arguments = json.loads(request)
    error, is_missing, result = "", False, None
    try:
      result = handlers[what](**arguments)
    except ModuleNotFoundError as e:
      error, is_missing = f"{e.name} is not installed", True
    except UserError as e:
      error = str(e)
    except Exception as e:  # Reported in one line, whatever a library raises.
      error = f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
    response = json.dumps([error, is_missing, result])
    print(response, file=responses, flush=True)


def _end_with_parent() -> None:
  """Ends this process with its parent, even while it is stopped (Linux)."""
  if not LINUX:
    return
  pr_set_pdeathsig = 1
  ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
  if os.getppid() != int(os.environ.get(_PARENT, os.getppid())):
    sys.exit("the parent process has ended")
