"""The demo's web application: a page, and analyses of images as JSON.

GET /          the page; its styles and scripts lie beside it
GET /model     what is served: name, dataset, classes, ...
GET /status    how many requests were answered and refused
POST /predict  the body is an image file; ?detect=0 and ?explain=0 do less

A refused request gets a JSON object with one sentence as `error`. Images are
held in memory until they are analyzed, and stored nowhere.
"""

import functools
import importlib.resources
from collections import Counter
from collections.abc import Collection

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fer_jax.serving.host_check import HostCheck
from fer_jax.serving.image_api import ImageApi, RequestError
from fer_jax.serving.upload_limits import MAX_BYTES, UploadMemory

_PAGE = "page.html"
_MEDIA_TYPES = {
  ".html": "text/html",
  ".css": "text/css",
  ".js": "text/javascript",
}


def make_app(
  image_api: ImageApi, names: Collection[str] = ("localhost",)
) -> Starlette:
  """Makes the application.

  Args:
    image_api: analyzes images, one at a time.
    names: host names of the server besides its addresses, see `HostCheck`.
  """
  files = _files()
  one_at_a_time = anyio.CapacityLimiter(1)
  memory = UploadMemory()
  refused: Counter[int] = Counter()  # by status
  answered = 0

  async def file(request: Request) -> Response:
    return files[request.url.path.removeprefix("/") or _PAGE]

  async def model(request: Request) -> Response:
    del request
    return JSONResponse({**image_api.describe(), "max_bytes": MAX_BYTES})

  async def status(request: Request) -> Response:
    del request
    counts = {str(number): count for number, count in refused.items()}
    return JSONResponse(
      {"answered": answered, "refused": counts, "upload_bytes": memory.total}
    )

  async def predict(request: Request) -> Response:
    nonlocal answered
    options = {name: _flag(request, name) for name in ("detect", "explain")}
    client = request.client.host if request.client else ""
    with memory.upload(client) as upload:
      content = await upload.read(request)
      analyze = functools.partial(image_api.analyze, content, **options)
      del content
      # Resumes reading from the connection: else, after a large body, uvicorn
      # would not notice that the client leaves while it waits here.
      await request.is_disconnected()
      async with one_at_a_time:
        if await request.is_disconnected():
          raise RequestError(400, "The client has left.")
        analysis = await anyio.to_thread.run_sync(analyze)
    answered += 1
    return JSONResponse(analysis)

  async def refuse(request: Request, error: Exception) -> Response:
    del request
    assert isinstance(error, RequestError)
    refused[error.status] += 1
    headers = {"Retry-After": "5"} if error.status == 503 else {}
    return JSONResponse({"error": error.message}, error.status, headers)

  return Starlette(
    routes=[
      Route("/", file),
      Route("/model", model),
      Route("/status", status),
      Route("/predict", predict, methods=["POST"]),
      *(Route(f"/{name}", file) for name in files),
    ],
    middleware=[Middleware(HostCheck, names=names)],
    exception_handlers={
      RequestError: refuse,
      HTTPException: _http_error,
      Exception: _internal_error,
    },
  )


def _files() -> dict[str, Response]:
  """Returns the page and what it loads."""
  folder = importlib.resources.files("fer_jax.serving")
  return {
    entry.name: Response(entry.read_bytes(), media_type=media_type)
    for entry in folder.iterdir()
    for ending, media_type in _MEDIA_TYPES.items()
    if entry.name.endswith(ending)
  }


def _flag(request: Request, name: str) -> bool:
  value = request.query_params.get(name, "1")
  if value not in ("0", "1"):
    raise RequestError(400, f"{name}={value} must be 0 or 1.")
  return value == "1"


async def _http_error(request: Request, error: Exception) -> Response:
  """Answers requests for paths and methods that do not exist."""
  del request
  assert isinstance(error, HTTPException)
  return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _internal_error(request: Request, error: Exception) -> Response:
  """Answers after an error of ours, which the server prints."""
  del request, error
  return JSONResponse(
    {"error": "The demo failed on this picture: see its terminal."}, 500
  )
