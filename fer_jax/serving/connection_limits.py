"""Limits of connections: time for a header, and how many there are."""

import asyncio
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# A request's header must be complete this long after the connection was opened
# or the last response was sent.
HEADER_SECONDS = 10
MAX_CONNECTIONS = 256

_TIMEOUT = (
  b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n"
  b"Content-Length: 0\r\n\r\n"
)
_BUSY = (
  b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
  b"Retry-After: 5\r\nContent-Length: 0\r\n\r\n"
)


class LimitedProtocol(H11Protocol):
  """Uvicorn's HTTP protocol; connections without a request cannot fill it.

  A connection whose header is not complete in time is closed. Beyond
  `MAX_CONNECTIONS`, one that has no request under way makes room for the new
  one: of the client with the most connections, the one that waits longest.
  """

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **kwargs)
    self._timer: asyncio.TimerHandle | None = None

  def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
    """Starts the header's time, and makes room for the connection."""
    super().connection_made(transport)
    self._watch()
    if len(self.connections) > MAX_CONNECTIONS:
      self._make_room()

  def data_received(self, data: bytes) -> None:
    """Stops the header's time once the header is complete."""
    super().data_received(data)
    self._watch()

  def on_response_complete(self) -> None:
    """Starts the next header's time."""
    super().on_response_complete()
    self._watch()

  def connection_lost(self, exc: Exception | None) -> None:
    """Stops the header's time."""
    super().connection_lost(exc)
    self._stop_timer()

  @property
  def is_waiting(self) -> bool:
    """Whether there is no request under way."""
    return self.cycle is None or self.cycle.response_complete

  @property
  def deadline(self) -> float:
    """When the connection is closed if no header is complete before."""
    return self._timer.when() if self._timer else float("inf")

  def _watch(self) -> None:
    if not self.is_waiting:
      self._stop_timer()
    elif self._timer is None and not self.transport.is_closing():
      self._timer = self.loop.call_later(HEADER_SECONDS, self._end, _TIMEOUT)

  def _stop_timer(self) -> None:
    if self._timer is not None:
      self._timer.cancel()
      self._timer = None

  def _make_room(self) -> None:
    others = [c for c in self.connections if isinstance(c, LimitedProtocol)]
    counts = Counter(other._address for other in others)
    waiting = [c for c in others if c is not self and c.is_waiting]
    if not waiting:
      self._end(_BUSY)
      return
    most = max(counts[other._address] for other in waiting)
    hogs = [other for other in waiting if counts[other._address] == most]
    min(hogs, key=lambda other: other.deadline)._end(_BUSY)

  @property
  def _address(self) -> str:
    return self.client[0] if self.client else ""

  def _end(self, response: bytes) -> None:
    """Closes the connection; says why if a request was begun."""
    self.connections.discard(self)
    self._stop_timer()
    if not self.transport.is_closing():
      if self.conn.trailing_data[0]:
        self.transport.write(response)
      self.transport.close()
