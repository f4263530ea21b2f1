"""Images on the web: downloaded within bounds of size and time."""

import string
import time
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException, HTTPMessage
from typing import IO, Any

from fer_jax.data.image_reader import UnreadableError

MAX_BYTES = 64 * 2**20
TIMEOUT = 30.0  # seconds until the content has come
_PAUSE = 10.0  # seconds without a byte
_SCHEMES = ("http://", "https://")
_CHUNK = 2**16


def is_url(source: Any) -> bool:
  """Returns whether an image is to be downloaded.

  >>> is_url("https://example.org/a.jpg"), is_url("a.jpg")
  (True, False)
  """
  return isinstance(source, str) and source.lower().startswith(_SCHEMES)


def ascii_url(url: str) -> str:
  """Returns a URL in ASCII, as HTTP has it: other characters encoded.

  Raises:
    ValueError: the host's name cannot be encoded.

  >>> ascii_url("https://bücher.example/größe 1%25.jpg?q=ä")
  'https://xn--bcher-kva.example/gr%C3%B6%C3%9Fe%201%25.jpg?q=%C3%A4'
  """
  parts = urllib.parse.urlsplit(url)
  host = parts.netloc
  if not host.isascii():
    host = host.encode("idna").decode()
  rest = (urllib.parse.quote(part, string.punctuation) for part in parts[2:])
  return urllib.parse.urlunsplit((parts.scheme, host, *rest))


def download(
  url: str, *, max_bytes: int = MAX_BYTES, timeout: float = TIMEOUT
) -> bytes:
  """Returns what lies at an http or https address.

  Args:
    url: the address; redirections lead to http and https only.
    max_bytes: at most.
    timeout: seconds until the content has come, checked whenever a part of it
      arrives. A server that sends nothing for 10 s ends it sooner; only headers
      that arrive byte by byte may take longer.

  Raises:
    UnreadableError: it cannot be downloaded within the bounds.
  """
  deadline = time.monotonic() + timeout
  opener = urllib.request.build_opener(_HttpOnly)
  headers = {"User-Agent": "fer_jax"}
  try:
    request = urllib.request.Request(ascii_url(url), headers=headers)
    with opener.open(request, timeout=min(timeout, _PAUSE)) as response:
      return _read(response, max_bytes, deadline, timeout)
  except urllib.error.HTTPError as e:
    e.close()
    raise UnreadableError(f"the server answered {e.code} {e.reason}") from e
  except (OSError, HTTPException, ValueError) as e:
    why = getattr(e, "reason", None) or e
    raise UnreadableError(f"cannot be downloaded: {why}") from e


def _read(
  response: Any, max_bytes: int, deadline: float, timeout: float
) -> bytes:
  content = bytearray()
  while chunk := response.read1(_CHUNK):
    content += chunk
    if len(content) > max_bytes:
      raise UnreadableError(f"larger than {max_bytes / 2**20:.0f} MiB")
    if time.monotonic() > deadline:
      raise UnreadableError(f"not downloaded within {timeout:g} s")
  return bytes(content)


class _HttpOnly(urllib.request.HTTPRedirectHandler):
  """Refuses redirections to other schemes, such as ftp."""

  def redirect_request(
    self,
    req: urllib.request.Request,
    fp: IO[bytes],
    code: int,
    msg: str,
    headers: HTTPMessage,
    newurl: str,
  ) -> urllib.request.Request | None:
    """Returns the next request, or raises."""
    if not is_url(newurl):
      fp.close()
      raise UnreadableError(f"redirected to {newurl.partition(':')[0]}:")
    return super().redirect_request(req, fp, code, msg, headers, newurl)
