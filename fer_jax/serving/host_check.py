"""Keeps other people's pages away from a server on this machine."""

import ipaddress
import urllib.parse
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The page loads nothing but its own files and pictures it was given or made
# itself, and cannot be put into another page.
_HEADERS = {
  "Content-Security-Policy": (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src"
    " 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
  ),
  "Cache-Control": "no-store",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
}


class Guard:
  """Refuses what does not come from the app's own page; adds headers.

  A page elsewhere can have its name resolve to 127.0.0.1 and so pass for this
  server's own in a browser (DNS rebinding), but the Host header tells: it has
  that name. Addresses cannot be rebound. A page that merely posts here is
  told by Sec-Fetch-Site.

  Args:
    app: what is guarded.
    names: what the server may be called in a browser besides its addresses.
  """

  def __init__(self, app: ASGIApp, names: Collection[str] = ("localhost",)):
    self._app = app
    self._names = {name.lower() for name in names}

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Serves one request."""

    async def send_with_headers(message: Message) -> None:
      if message["type"] == "http.response.start":
        MutableHeaders(scope=message).update(_HEADERS)
      await send(message)

    headers, app = Headers(scope=scope), self._app
    if not is_own(headers.get("host", ""), self._names):
      app = _refusal(
        400, "This server is not called so: open the address it has printed."
      )
    elif headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
      app = _refusal(403, "Other pages cannot use this server.")
    await app(scope, receive, send_with_headers)


def is_own(host: str, names: Collection[str]) -> bool:
  """Whether a Host header is an address or one of some names, with any port.

  >>> is_own("127.0.0.1:8000", ()), is_own("[::1]", ())
  (True, True)
  >>> is_own("LOCALHOST:80", {"localhost"}), is_own("evil.example", ())
  (True, False)
  """
  try:
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    if name in names:
      return True
    ipaddress.ip_address(name)
  except ValueError:
    return False
  return True


def _refusal(status: int, error: str) -> ASGIApp:
  return JSONResponse({"error": error}, status)
