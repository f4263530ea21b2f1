"""The demo's limits under real sockets: slow, many and large clients."""

import contextlib
import json
import socket
import threading
import time

import pytest
from sample_images import encoded, picture

pytest.importorskip("uvicorn", reason="needs the extra `demo`")

from fer_jax.serving import app, connection_limits, server, upload_limits
from fer_jax.serving.image_api import RequestError
from fer_jax.serving.upload_limits import UploadMemory

IMAGE = encoded(picture())


@pytest.fixture
def address(monkeypatch, image_api):
  monkeypatch.setattr(connection_limits, "HEADER_SECONDS", 1)
  monkeypatch.setattr(connection_limits, "MAX_CONNECTIONS", 8)
  monkeypatch.setattr(upload_limits, "IDLE_SECONDS", 1)
  with server.listen("127.0.0.1", 0) as listener:
    running = server.make_server(app.make_app(image_api))
    thread = threading.Thread(target=running.run, args=([listener],))
    thread.start()
    yield listener.getsockname()
    running.should_exit = True
    thread.join()


def connect(address):
  return socket.create_connection(address, timeout=20)


def request(address, body=IMAGE, path="/predict?explain=0"):
  """Status and JSON of a request on a connection of its own."""
  method = "POST" if body else "GET"
  with connect(address) as client:
    client.sendall(
      f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
      f"Content-Length: {len(body)}\r\n\r\n".encode()
      + body
    )
    return answer(client)


def answer(client):
  """Reads the answer, until the server closes the connection."""
  received = b""
  with client:
    while chunk := client.recv(2**16):
      received += chunk
  head, _, body = received.partition(b"\r\n\r\n")
  return int(head.split()[1]), json.loads(body or "null")


def closing_status(client):
  """Status of the answer before the connection was closed; None: none.

  The server answers only if it has read the beginning of a request.
  """
  with client:
    try:
      received = client.recv(2**16)
    except ConnectionResetError:  # Closed before all was read.
      return None
  return int(received.split()[1]) if received else None


def is_analyzed(found):
  status, analysis = found
  return status == 200 and len(analysis["faces"]) == 1


def upload(address, length, first=b"x"):
  """A connection whose body has begun."""
  client = connect(address)
  client.sendall(
    b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n" % length + first
  )
  return client


def test_half_headers_lock_nobody_out_and_end(address, monkeypatch):
  monkeypatch.setattr(connection_limits, "HEADER_SECONDS", 3)
  half = [connect(address) for _ in range(20)]  # The server has room for 8.
  for client in half:
    client.sendall(b"GET / HTTP/1.1\r\nHost: 127")
  time.sleep(0.2)
  started = time.monotonic()
  for _ in range(5):
    assert is_analyzed(request(address))
  assert time.monotonic() - started < 3
  statuses = [closing_status(client) for client in half]
  assert set(statuses) <= {408, 503, None} and 408 in statuses
  assert time.monotonic() - started < 10


def test_a_connection_without_a_byte_is_closed(address):
  with connect(address) as client:
    started = time.monotonic()
    assert client.recv(1) == b""
  assert 0.5 < time.monotonic() - started < 5


def test_a_second_header_has_its_time_too(address):
  with connect(address) as client:
    client.sendall(b"GET /model HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    client.recv(2**16)
    client.sendall(b"GET /mo")
    assert b"408" in client.recv(2**16)


def test_idle_uploads_end_and_lock_nobody_out(address):
  slow = [upload(address, 1000) for _ in range(5)]
  assert is_analyzed(request(address))
  for client in slow:
    status, said = answer(client)
    assert status == 408 and "too slow" in said["error"]
  _, counts = request(address, b"", "/status")
  assert counts == {"answered": 1, "refused": {"408": 5}, "upload_bytes": 0}


def test_uploads_that_drip_end(address):
  """Each byte comes in time, but all of them together do not."""
  client, started = upload(address, 1000), time.monotonic()
  answered = threading.Event()

  def drip():
    with contextlib.suppress(OSError):  # The server has closed the connection.
      while not answered.wait(0.2):
        client.sendall(b"x")

  dripping = threading.Thread(target=drip)
  dripping.start()
  try:
    assert closing_status(client.dup()) == 408
    assert time.monotonic() - started < 5
  finally:
    answered.set()
    dripping.join()
    client.close()


def test_many_clients_are_all_answered(address, monkeypatch):
  monkeypatch.setattr(connection_limits, "MAX_CONNECTIONS", 64)
  found = []
  clients = [
    threading.Thread(target=lambda: found.append(request(address)))
    for _ in range(40)
  ]
  for client in clients:
    client.start()
  for client in clients:
    client.join()
  assert len(found) == 40 and all(map(is_analyzed, found))


def test_a_client_that_has_left_is_not_waited_for(
  address, image_api, monkeypatch
):
  analyze = image_api.analyze

  def slow(*arguments, **options):
    time.sleep(1)
    return analyze(*arguments, **options)

  monkeypatch.setattr(image_api, "analyze", slow)
  first = upload(address, len(IMAGE), IMAGE)
  time.sleep(0.2)
  large = encoded(picture(600, 600))  # More than the server reads at once.
  upload(address, len(large), large).close()
  assert is_analyzed(answer(first))
  time.sleep(0.3)
  _, counts = request(address, b"", "/status")
  assert counts == {"answered": 1, "refused": {"400": 1}, "upload_bytes": 0}


def test_memory_is_bounded_by_client_and_in_all():
  memory = UploadMemory(max_bytes=100, max_bytes_per_client=60)
  with memory.upload("a") as one, memory.upload("b") as other:
    for upload, size in ((one, 60), (other, 40)):
      memory.take("a" if upload is one else "b", size)
      upload.num_bytes += size
    for client in "abc":
      with pytest.raises(RequestError, match="at once") as refused:
        memory.take(client, 1)
      assert refused.value.status == 503
    assert memory.total == 100
  assert memory.total == 0
  memory.take("a", 60)
