"""The demo's server: listens at an address and serves until Ctrl-C."""

import contextlib
import ipaddress
import os
import socket

import uvicorn
from starlette.types import ASGIApp

from fer_jax.errors import UserError
from fer_jax.serving.connection_limits import LimitedProtocol

_SHUTDOWN_SECONDS = 3


def listen(host: str, port: int) -> socket.socket:
  """Listens at an address, before anything slow starts.

  Args:
    host: an address or a name of this machine.
    port: 0 is any free one.

  Raises:
    UserError: the address is not this machine's, or the port is in use.
  """
  try:
    family, _, _, _, address = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM
    )[0]
    return socket.create_server(address[:2], family=family)
  except (socket.gaierror, UnicodeError) as e:
    raise UserError(
      f"host={host} is unknown: 127.0.0.1 serves this machine alone, 0.0.0.0"
      " every machine that reaches it"
    ) from e
  except OSError as e:
    reason = os.strerror(e.errno) if e.errno else e  # Without the address.
    raise UserError(
      f"cannot listen on host={host} port={port}: {reason}; give another, or"
      " port=0 for any free one"
    ) from e


def is_loopback(listener: socket.socket) -> bool:
  """Returns whether only this machine reaches a listener."""
  return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def names(host: str, loopback: bool) -> set[str]:
  """Returns the host names of a server, besides its addresses."""
  known = {"localhost", host.lower()}
  if not loopback:
    machine = socket.gethostname().lower()
    known |= {machine, f"{machine}.local"}
  return known


def url(host: str, listener: socket.socket) -> str:
  """Returns the URL, with the machine's name if it listens everywhere."""
  address, port = listener.getsockname()[:2]
  if ipaddress.ip_address(address).is_unspecified:
    host = socket.gethostname()
  return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def make_server(app: ASGIApp) -> uvicorn.Server:
  """Makes the server of an application; `run(sockets=[listener])` serves."""
  return uvicorn.Server(
    uvicorn.Config(
      app,
      log_level="warning",
      access_log=False,
      lifespan="off",
      ws="none",
      server_header=False,
      proxy_headers=False,
      http=LimitedProtocol,
      timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
  )


def serve(app: ASGIApp, listener: socket.socket) -> None:
  """Serves until Ctrl-C."""
  with contextlib.suppress(KeyboardInterrupt):
    make_server(app).run(sockets=[listener])
