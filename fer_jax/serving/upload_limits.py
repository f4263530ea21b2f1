"""Limits of uploads: size, speed, and memory of all at once."""

import contextlib
import time
from collections import Counter
from collections.abc import Iterator

import anyio
from starlette.requests import ClientDisconnect, Request

from fer_jax.serving.image_api import RequestError

MAX_BYTES = 10 * 2**20  # of an image file
# An upload ends after this long without data, and if its average rate is lower
# after the first seconds.
IDLE_SECONDS = 10
MIN_BYTES_PER_SECOND = 32 * 2**10


class UploadMemory:
  """Bytes of all uploads that are in memory.

  Bytes count when they arrive, so that slow uploads take no room they do not
  fill, and until the image has been analyzed.

  Args:
    max_bytes: of all clients.
    max_bytes_per_client: of one address.
  """

  def __init__(
    self,
    max_bytes: int = 256 * 2**20,
    max_bytes_per_client: int = 128 * 2**20,
  ):
    self._max_bytes = max_bytes
    self._max_bytes_per_client = max_bytes_per_client
    self._by_client: Counter[str] = Counter()

  @property
  def total(self) -> int:
    """Bytes in memory now."""
    return self._by_client.total()

  @contextlib.contextmanager
  def upload(self, client: str) -> Iterator["Upload"]:
    """Yields a new upload, whose bytes are released at the end.

    Args:
      client: its address.
    """
    upload = Upload(self, client)
    try:
      yield upload
    finally:
      self._by_client[client] -= upload.num_bytes
      if not self._by_client[client]:
        del self._by_client[client]

  def take(self, client: str, num_bytes: int) -> None:
    """Counts bytes that have arrived.

    Raises:
      RequestError: there is no room for them.
    """
    client_bytes = self._by_client[client] + num_bytes
    if (
      client_bytes > self._max_bytes_per_client
      or self.total + num_bytes > self._max_bytes
    ):
      raise RequestError(
        503, "Too many pictures are uploaded at once: try again in a moment."
      )
    self._by_client[client] = client_bytes


class Upload:
  """One upload.

  Attributes:
    num_bytes: received so far.
  """

  def __init__(self, memory: UploadMemory, client: str):
    self._memory = memory
    self._client = client
    self.num_bytes = 0

  async def read(self, request: Request) -> bytes:
    """Reads a request's body.

    Raises:
      RequestError: it is too large, too slow, or the client is gone.
    """
    if int(request.headers.get("content-length", 0)) > MAX_BYTES:
      raise _too_large()
    chunks: list[bytes] = []
    started = time.monotonic()
    stream = request.stream()
    while True:
      allowed = IDLE_SECONDS + self.num_bytes / MIN_BYTES_PER_SECOND
      left = started + allowed - time.monotonic()
      try:
        with anyio.fail_after(max(min(IDLE_SECONDS, left), 0)):
          chunk = await anext(stream)
      except StopAsyncIteration:
        return b"".join(chunks)
      except TimeoutError as e:
        raise RequestError(
          408,
          "The upload was too slow: try again, or choose a smaller picture.",
        ) from e
      except ClientDisconnect as e:
        raise RequestError(400, "The upload was interrupted.") from e
      if self.num_bytes + len(chunk) > MAX_BYTES:
        raise _too_large()
      self._memory.take(self._client, len(chunk))
      self.num_bytes += len(chunk)
      chunks.append(chunk)


def _too_large() -> RequestError:
  return RequestError(
    413,
    f"The picture is larger than {MAX_BYTES // 2**20} MiB: choose a smaller"
    " one.",
  )
