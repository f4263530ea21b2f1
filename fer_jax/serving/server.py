"""The demo's server: an address of its own, served until Ctrl-C."""

import contextlib
import ipaddress
import os
import socket

import uvicorn
from starlette.types import ASGIApp

from fer_jax.errors import UserError

# Requests at once; each may hold a picture in memory.
_MOST_REQUESTS = 64
_SECONDS_TO_END = 3


def listen(host: str, port: int) -> socket.socket:
  """Takes an address, before anything slow is begun.

  Args:
    host: an address of this machine, or a name of it.
    port: 0 is any that is free.

  Raises:
    UserError: the address is not this machine's, or the port is taken.
  """
  try:
    family, _, _, _, address = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM
    )[0]
    return socket.create_server(address[:2], family=family)
  except socket.gaierror as e:
    raise UserError(
      f"--host={host} is not known: 127.0.0.1 is this machine alone, 0.0.0.0"
      " all that reach it"
    ) from e
  except OSError as e:
    reason = os.strerror(e.errno) if e.errno else e  # Without the address.
    raise UserError(
      f"cannot listen on --host={host} --port={port}: {reason}; give another,"
      " or --port=0 for any that is free"
    ) from e


def is_loopback(listener: socket.socket) -> bool:
  """Whether only this machine reaches a listener."""
  return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def names(host: str, loopback: bool) -> set[str]:
  """What a server may be called in a browser, besides its addresses."""
  known = {"localhost", host.lower()}
  if not loopback:
    machine = socket.gethostname().lower()
    known |= {machine, f"{machine}.local"}
  return known


def url(host: str, listener: socket.socket) -> str:
  """Where a browser finds it; by the machine's name if it has any address."""
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
      limit_concurrency=_MOST_REQUESTS,
      timeout_graceful_shutdown=_SECONDS_TO_END,
    )
  )


def serve(app: ASGIApp, listener: socket.socket) -> None:
  """Serves until Ctrl-C, which is how it is meant to end."""
  with contextlib.suppress(KeyboardInterrupt):
    make_server(app).run(sockets=[listener])
