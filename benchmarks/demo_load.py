"""The demo under load: half headers, slow uploads, and many clients.

python benchmarks/demo_load.py [--model=W] [--half=80] [--slow=40] \
  [--clients=100] [--requests=3]

Starts `fer_jax.demo` on a free port of 127.0.0.1, and prints for each load how
other clients fare, what was refused, and the server's peak memory. Ends after
a few minutes at most.
"""

import collections
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

import numpy as np
from absl import app, flags
from PIL import Image

_SECONDS = 60  # of waiting for any answer

Address = tuple[str, int]


def define_flags() -> None:
  """Defines the benchmark's flags."""
  flags.DEFINE_string("model", None, "Workdir or released model of the demo.")
  flags.DEFINE_integer("half", 80, "Connections that send half a header.")
  flags.DEFINE_integer("slow", 40, "Uploads that stop before their last byte.")
  flags.DEFINE_integer("clients", 100, "Clients at once.")
  flags.DEFINE_integer("requests", 3, "Requests of each client.")


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
    print(f"idle: {_peak_memory(server.pid)} MB")
    half_headers(address, given.half)
    print(f"  peak {_peak_memory(server.pid)} MB")
    slow_uploads(address, given.slow)
    print(f"  peak {_peak_memory(server.pid)} MB")
    many_clients(address, given.clients, given.requests)
    print(f"  peak {_peak_memory(server.pid)} MB")
    print(f"status: {exchange(address, b'', '/status')[1]}")
  finally:
    server.terminate()
    server.wait()


def half_headers(address: Address, count: int) -> None:
  """Opens connections that never complete a header; times another client."""
  held = [socket.create_connection(address) for _ in range(count)]
  for client in held:
    client.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConte")
  time.sleep(1)
  started = time.monotonic()
  statuses = collections.Counter(
    exchange(address, photo(200))[0] for _ in range(5)
  )
  seconds = time.monotonic() - started
  ends = []
  for client in held:
    client.settimeout(_SECONDS)
    with client:
      while client.recv(2**16):
        pass
    ends.append(time.monotonic() - started)
  print(
    f"{count} half headers: 5 other requests {dict(statuses)} in"
    f" {seconds:.2f} s; all closed after {max(ends):.1f} s"
  )


def slow_uploads(address: Address, count: int) -> None:
  """Uploads almost 10 MiB each, and stops; times another client."""
  length = 10 * 2**20
  body = bytes(length - 1)
  held = []
  for _ in range(count):
    client = socket.create_connection(address, timeout=_SECONDS)
    held.append(client)
    threading.Thread(target=_send, args=(client, length, body)).start()
  time.sleep(3)
  started = time.monotonic()
  statuses = collections.Counter(
    exchange(address, photo(200))[0] for _ in range(5)
  )
  seconds = time.monotonic() - started
  ends = collections.Counter(_status(client) for client in held)
  print(
    f"{count} slow uploads {dict(ends)}: 5 other requests {dict(statuses)} in"
    f" {seconds:.2f} s"
  )


def many_clients(address: Address, count: int, requests: int) -> None:
  """Sends photos from many clients at once."""
  statuses: collections.Counter[str] = collections.Counter()
  content = photo(1000)

  def visit() -> None:
    for _ in range(requests):
      try:
        statuses[str(exchange(address, content)[0])] += 1
      except TimeoutError:
        statuses["timeout"] += 1

  clients = [threading.Thread(target=visit) for _ in range(count)]
  started = time.monotonic()
  for client in clients:
    client.start()
  for client in clients:
    client.join()
  seconds = time.monotonic() - started
  print(
    f"{count} clients, {requests} requests each: {dict(statuses)} in"
    f" {seconds:.1f} s, {count * requests / seconds:.1f} per second"
  )


def exchange(
  address: Address, body: bytes, path: str = "/predict?detect=0&explain=0"
) -> tuple[int, object]:
  """Returns status and JSON of a request on a connection of its own."""
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
  return int(head.split()[1]), json.loads(content)


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
  """Returns where the demo listens, once it has said so."""
  assert server.stdout is not None
  for line in server.stdout:
    if found := re.search(r"http://([\d.]+):(\d+)", line):
      return found[1], int(found[2])
  raise RuntimeError("the demo ended before it served")


def _peak_memory(pid: int) -> int:
  status = pathlib.Path(f"/proc/{pid}/status").read_text()
  found = re.search(r"VmHWM:\s+(\d+) kB", status)
  assert found
  return int(found[1]) // 1024


if __name__ == "__main__":
  define_flags()
  app.run(main)
