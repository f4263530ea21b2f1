"""Keeps other sites' pages away from a server on this machine."""

import ipaddress
import urllib.parse
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The page loads nothing but its own files and images that it was given or made
# itself, and cannot be embedded in another page.
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


class HostCheck:
  """Refuses requests that do not come from the app's own page; adds headers.

  Another site can have its name resolve to 127.0.0.1 and so pass for this
  server in a browser (DNS rebinding), but then the Host header has that name.
  Addresses cannot be rebound. A page that merely posts here is recognized by
  Sec-Fetch-Site, or in browsers that do not send it by Origin. It may link to
  the page.

  Args:
    app: the application.
    names: host names of the server besides its addresses.
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
    if not is_own_host(headers.get("host", ""), self._names):
      app = _refusal(
        400, "Invalid Host header: open the address that the demo has printed."
      )
    elif not (is_own_page(headers) or _opens_page(scope, headers)):
      app = _refusal(403, "Pages of other sites cannot use this server.")
    await app(scope, receive, send_with_headers)


def is_own_host(host: str, names: Collection[str]) -> bool:
  """Returns whether a Host header is an address or a name, with any port.

  >>> is_own_host("127.0.0.1:8000", ()), is_own_host("evil.example", ())
  (True, False)
  >>> is_own_host("LOCALHOST:80", {"localhost"}), is_own_host("[::1]", ())
  (True, True)
  """
  try:
    name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    if name in names:
      return True
    ipaddress.ip_address(name)
  except ValueError:
    return False
  return True


def is_own_page(headers: Headers) -> bool:
  """Returns whether a request comes from a page of this server, or from none.

  >>> is_own_page(Headers({"host": "a:1", "origin": "http://a:1"}))
  True
  >>> is_own_page(Headers({"host": "a:1", "origin": "http://b:1"}))
  False
  """
  site = headers.get("sec-fetch-site")
  if site is not None:
    return site in ("none", "same-origin")
  origin = headers.get("origin")
  if origin is None:  # No browser, or a page opened by its address.
    return True
  host = origin.partition("://")[2]
  return host != "" and host.lower() == headers.get("host", "").lower()


def _opens_page(scope: Scope, headers: Headers) -> bool:
  """Returns whether a browser opens the page, as a link elsewhere asks it to.

  The page holds nothing, what it does is its own, and no other can embed it.
  """
  return (
    (scope["method"], scope["path"]) == ("GET", "/")
    and headers.get("sec-fetch-mode") == "navigate"
    and headers.get("sec-fetch-dest") == "document"
  )


def _refusal(status: int, error: str) -> ASGIApp:
  return JSONResponse({"error": error}, status)
