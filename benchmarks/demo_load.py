r"""Measures the demo under load: half headers, slow uploads, and many clients.

python benchmarks/demo_load.py [--model=W] [--half=80] [--slow=40] \
  [--clients=100] [--requests=3]

Starts `fer_jax.demo` on a free port of 127.0.0.1, and prints for each load how
other clients fare, what was refused, and the server's peak memory (on Linux).
Ends after a few minutes at most.
"""

import collections
import contextlib
import io
import json
import pathlib
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent import futures

import numpy as np
from absl import flags
from PIL import Image

from fer_jax.cli import app
from fer_jax.errors import UserError

_SECONDS = 60  # of waiting for any answer

Address = tuple[str, int]


def define_flags() -> None:
  """Defines the benchmark's flags."""
  flags.DEFINE_string("model", None, "Workdir or released model of the demo.")
  flags.DEFINE_integer(
    "half", 80, "Connections that send half a header.", lower_bound=1
  )
  flags.DEFINE_integer(
    "slow", 40, "Uploads that stop before their last byte.", lower_bound=1
  )
  flags.DEFINE_integer("clients", 100, "Clients at once.", lower_bound=1)
  flags.DEFINE_integer("requests", 3, "Requests per client.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
  """Starts the demo, loads it, prints what happened."""
  del argv
  given = flags.FLAGS
  command = [sys.executable, "-m", "fer_jax.demo", "--port=0"]
  if given.model:
    command.append(f"--workdir={given.model}")
  server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
  try:
    address = _address(server)
    print(f"idle: {_peak_memory(server.pid)} MiB")
    half_headers(address, given.half)
    print(f"  peak {_peak_memory(server.pid)} MiB")
    slow_uploads(address, given.slow)
    print(f"  peak {_peak_memory(server.pid)} MiB")
    many_clients(address, given.clients, given.requests)
    print(f"  peak {_peak_memory(server.pid)} MiB")
    print(f"status: {exchange(address, b'', '/status')[1]}")
  except OSError as e:
    raise UserError(f"the demo does not answer: {e.strerror or e}") from e
  finally:
    server.terminate()
    server.wait()


def half_headers(address: Address, count: int) -> None:
  """Opens connections that never complete a header; times another client."""
  held = _connected(address, count)
  for client in held:
    with contextlib.suppress(OSError):  # Already closed by the server.
      client.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConte")
  time.sleep(1)
  started = time.monotonic()
  statuses = _statuses(address, photo(200), 5)
  seconds = time.monotonic() - started
  num_open = 0
  for client in held:
    client.settimeout(_SECONDS)
    with client:
      try:
        while client.recv(2**16):
          pass
      except TimeoutError:
        num_open += 1
      except OSError:
        pass  # Closed by a reset.
  print(
    f"{len(held)} of {count} half headers: 5 other requests {statuses} in"
    f" {seconds:.2f} s; {len(held) - num_open} closed after"
    f" {time.monotonic() - started:.1f} s"
  )


def slow_uploads(address: Address, count: int) -> None:
  """Uploads almost 10 MiB each, and stops; times another client."""
  length = 10 * 2**20
  body = bytes(length - 1)
  held = _connected(address, count)
  for client in held:
    threading.Thread(target=_send, args=(client, length, body)).start()
  time.sleep(3)
  started = time.monotonic()
  statuses = _statuses(address, photo(200), 5)
  seconds = time.monotonic() - started
  ends = collections.Counter(_status(client) for client in held)
  print(
    f"{len(held)} of {count} slow uploads {dict(ends)}: 5 other requests"
    f" {statuses} in {seconds:.2f} s"
  )


def many_clients(address: Address, count: int, requests: int) -> None:
  """Sends photos from many clients at once."""
  content = photo(1000)
  started = time.monotonic()
  with futures.ThreadPoolExecutor(count) as clients:
    visits = [
      clients.submit(_statuses, address, content, requests)
      for _ in range(count)
    ]
  seconds = time.monotonic() - started
  statuses: collections.Counter[str] = collections.Counter()
  for visit in visits:
    statuses.update(visit.result())
  print(
    f"{count} clients, {requests} requests each: {dict(statuses)} in"
    f" {seconds:.1f} s, {count * requests / seconds:.1f} per second"
  )


def _connected(address: Address, count: int) -> list[socket.socket]:
  """Opens connections, fewer if the server refuses some."""
  held = []
  for _ in range(count):
    with contextlib.suppress(OSError):
      held.append(socket.create_connection(address, timeout=_SECONDS))
  return held


def _statuses(address: Address, body: bytes, requests: int) -> dict[str, int]:
  """Sends requests one after the other, and counts how they end."""
  counts: collections.Counter[str] = collections.Counter()
  for _ in range(requests):
    try:
      end = str(exchange(address, body)[0])
    except TimeoutError:
      end = "timeout"
    except ConnectionRefusedError:
      end = "refused"
    except OSError:
      end = "closed"
    counts[end] += 1
  return dict(counts)


def exchange(
  address: Address, body: bytes, path: str = "/predict?detect=0&explain=0"
) -> tuple[int, object]:
  """Returns status and JSON of a request on a connection of its own.

  Raises:
    OSError: there was no whole answer.
  """
  method = "POST" if body else "GET"
  with socket.create_connection(address, timeout=_SECONDS) as client:
    client.sendall(
      f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
      f"Content-Length: {len(body)}\r\n\r\n".encode()
      + body
    )
    received = b""
    while chunk := client.recv(2**16):
      received += chunk
  head, _, content = received.partition(b"\r\n\r\n")
  try:
    return int(head.split()[1]), json.loads(content)
  except (IndexError, ValueError) as e:
    raise ConnectionResetError("the connection was closed") from e


def photo(size: int) -> bytes:
  """Returns a JPEG of noise, so many pixels wide and high."""
  pixels = np.random.default_rng(0).integers(
    0, 256, (size, size, 3), dtype=np.uint8
  )
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "JPEG")
  return file.getvalue()


def _send(client: socket.socket, length: int, body: bytes) -> None:
  try:
    client.sendall(
      b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
      b"Content-Length: %d\r\n\r\n" % length
    )
    client.sendall(body)
  except OSError:
    pass  # Refused while it was sent.


def _status(client: socket.socket) -> str:
  with client:
    try:
      return client.recv(2**16).split()[1].decode()
    except (OSError, IndexError):
      return "closed"


def _address(server: subprocess.Popen[str]) -> Address:
  """Returns where the demo listens, once it has said so.

  Raises:
    UserError: it ended before; its own message is on stderr.
  """
  assert server.stdout is not None
  for line in server.stdout:
    if found := re.search(r"http://([\d.]+):(\d+)", line):
      return found[1], int(found[2])
  raise UserError("the demo ended before it served; its message is above")


def _peak_memory(pid: int) -> str:
  """Returns the peak memory of a process in MiB, "?" if it is unknown."""
  with contextlib.suppress(OSError):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    if found := re.search(r"VmHWM:\s+(\d+) kB", status):
      return str(int(found[1]) // 1024)
  return "?"


if __name__ == "__main__":
  define_flags()
  app.run(main)
