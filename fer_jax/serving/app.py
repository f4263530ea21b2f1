"""The demo's web application: a page, and answers as JSON.

GET /          the page, with its styles and scripts beside it
GET /model     what is served: name, dataset, classes, ...
POST /predict  the body is a picture; ?detect=0 and ?explain=0 ask for less

What is refused has a JSON object with one sentence as `error`. Pictures are
held in memory while they are looked at, and nowhere else.
"""

import functools
import importlib.resources
from collections.abc import Collection

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fer_jax.serving.host_check import Guard
from fer_jax.serving.image_api import Answerer, RefusedError

MAX_BYTES = 10 * 2**20  # of a picture's file

_PAGE = "page.html"
_MEDIA_TYPES = {
  ".html": "text/html",
  ".css": "text/css",
  ".js": "text/javascript",
}


def make_app(
  answerer: Answerer, names: Collection[str] = ("localhost",)
) -> Starlette:
  """Makes the application.

  Args:
    answerer: answers, one picture at a time.
    names: what the server may be called besides its addresses, see `Guard`.
  """
  files = _files()
  one_at_a_time = anyio.CapacityLimiter(1)

  async def file(request: Request) -> Response:
    return files[request.url.path.removeprefix("/") or _PAGE]

  async def model(request: Request) -> Response:
    del request
    return JSONResponse({**answerer.describe(), "max_bytes": MAX_BYTES})

  async def predict(request: Request) -> Response:
    options = {name: _switch(request, name) for name in ("detect", "explain")}
    content = await _body(request)
    answer = functools.partial(answerer.answer, content, **options)
    return JSONResponse(
      await anyio.to_thread.run_sync(answer, limiter=one_at_a_time)
    )

  return Starlette(
    routes=[
      Route("/", file),
      Route("/model", model),
      Route("/predict", predict, methods=["POST"]),
      *(Route(f"/{name}", file) for name in files),
    ],
    middleware=[Middleware(Guard, names=names)],
    exception_handlers={
      RefusedError: _refused,
      HTTPException: _not_there,
      Exception: _failed,
    },
  )


def _files() -> dict[str, Response]:
  """The page and what it loads."""
  folder = importlib.resources.files("fer_jax.serving")
  return {
    entry.name: Response(entry.read_bytes(), media_type=media_type)
    for entry in folder.iterdir()
    for ending, media_type in _MEDIA_TYPES.items()
    if entry.name.endswith(ending)
  }


def _switch(request: Request, name: str) -> bool:
  value = request.query_params.get(name, "1")
  if value not in ("0", "1"):
    raise RefusedError(400, f"{name}={value} must be 0 or 1.")
  return value == "1"


async def _body(request: Request) -> bytes:
  """The request's body; no more of it is read than is allowed."""
  too_large = RefusedError(
    413,
    f"The picture is larger than {MAX_BYTES // 2**20} MiB: choose a smaller"
    " one.",
  )
  if int(request.headers.get("content-length", 0)) > MAX_BYTES:
    raise too_large
  content = bytearray()
  try:
    async for chunk in request.stream():
      content += chunk
      if len(content) > MAX_BYTES:
        raise too_large
  except ClientDisconnect as e:
    raise RefusedError(400, "The upload was broken off.") from e
  return bytes(content)


async def _refused(request: Request, error: Exception) -> Response:
  del request
  assert isinstance(error, RefusedError)
  return JSONResponse({"error": error.message}, error.status)


async def _not_there(request: Request, error: Exception) -> Response:
  """Of addresses and methods that there are not."""
  del request
  assert isinstance(error, HTTPException)
  return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
  """Of a fault of ours, which the server prints."""
  del request, error
  return JSONResponse(
    {"error": "The demo failed at this picture: its terminal says why."}, 500
  )
