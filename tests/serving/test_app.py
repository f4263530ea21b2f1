"""The demo over HTTP: its results, its limits, and what it refuses."""

import asyncio
import base64
import io
import os
import signal
import sys
import threading
import urllib.request

import numpy as np
import pytest
from PIL import Image
from sample_images import encoded, picture

pytest.importorskip("starlette", reason="needs the extra `demo`")
pytest.importorskip("httpx2", reason="needs httpx2")

from starlette.testclient import TestClient

from fer_jax import demo
from fer_jax.errors import UserError
from fer_jax.inference import explanation_sheets, gradcam
from fer_jax.inference.predictor import Predictor
from fer_jax.serving import app, server
from fer_jax.serving import image_api as image_api_module
from fer_jax.serving.image_api import ImageApi

LOCAL = "http://127.0.0.1:8000"


@pytest.fixture
def client(image_api):
  return TestClient(app.make_app(image_api), base_url=LOCAL)


def pixels_of(data_url):
  kind, content = data_url.split(",")
  assert kind == "data:image/png;base64"
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_the_page_and_its_files_are_served(client):
  page = client.get("/")
  assert page.headers["content-type"].startswith("text/html")
  for name in ("page.css", "page.js", "results.js", "camera.js"):
    assert client.get(f"/{name}").status_code == 200
  assert client.get("/app.py").status_code == 404
  assert client.get("/predict").status_code == 405


def test_the_page_may_load_nothing_from_elsewhere(client):
  for path in ("/", "/page.js", "/model", "/missing"):
    headers = client.get(path).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_the_model_is_described(client):
  said = client.get("/model").json()
  assert said["name"] == "tiny" and said["dataset"] == "bars"
  assert said["classes"] == list("abcdefg") and said["epoch"] in (1, 2)
  assert said["detection"] is True and said["max_bytes"] == 10 * 2**20


def test_an_image_is_analyzed(client, trained):
  answer = client.post("/predict", content=encoded(picture())).json()
  assert (answer["width"], answer["height"]) == (100, 60)
  assert answer["seconds"] > 0
  (face,) = answer["faces"]
  assert face["box"] == [0, 0, 50, 60] and face["score"] == 0.9
  assert list(face["probabilities"]) == list("abcdefg")
  crop = pixels_of(face["crop"])
  expected = trained.probabilities(crop[None, ..., None])[0]
  np.testing.assert_allclose(
    list(face["probabilities"].values()), expected, rtol=1e-5, atol=1e-7
  )
  assert face["label"] == "abcdefg"[expected.argmax()]
  assert face["probability"] == pytest.approx(expected.max())
  values = gradcam.gradcam(trained, crop[None, ..., None])[0]
  look = explanation_sheets.overlay(crop[..., None], values)
  np.testing.assert_allclose(pixels_of(face["gradcam"]), look, atol=2)
  assert face["located"] == values.any()


def test_options_do_less(client):
  content = encoded(picture(48, 48)[..., 0])
  answer = client.post("/predict?detect=0&explain=0", content=content).json()
  (face,) = answer["faces"]
  assert face["box"] is None and face["score"] is None
  assert face["gradcam"] is None and face["located"] is None
  np.testing.assert_array_equal(
    pixels_of(face["crop"]), picture(48, 48)[..., 0]
  )


def test_a_picture_without_faces_has_none(client):
  answer = client.post("/predict", content=encoded(0 * picture())).json()
  assert answer["faces"] == [] and answer["width"] == 100


def test_faces_are_looked_for_in_color(trained):
  seen = []

  def detect(pixels):
    seen.append(pixels)
    return []

  api = ImageApi(Predictor(trained, detect))
  api.analyze(encoded(picture()))
  np.testing.assert_array_equal(seen[0], picture())


def test_nothing_compiles_after_warming_up(client, image_api, monkeypatch):
  steps = [image_api._gradcam._step, image_api._predictor.trained._step("none")]
  before = [step._cache_size() for step in steps]
  for shape in ((60, 100), (30, 31)):
    client.post("/predict", content=encoded(picture(*shape)))
  assert [step._cache_size() for step in steps] == before == [1, 1]


@pytest.mark.parametrize(
  "status, sentence, content",
  [
    (400, "empty", b""),
    (415, "not a picture", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    (415, "not a picture", b"%PDF-1.7 and so on"),
    (422, "damaged", encoded(picture())[:5000]),
    (422, "damaged", encoded(picture(), "JPEG")[:1500]),
    (413, "larger than 10 MiB", bytes(app.MAX_BYTES + 1)),
  ],
)
def test_what_is_not_an_image_is_refused(client, status, sentence, content):
  response = client.post("/predict", content=content)
  assert response.status_code == status
  (error,) = response.json().values()
  assert sentence in error and error.endswith(".") and "<_io" not in error


def test_too_many_pixels_are_refused(client, monkeypatch):
  monkeypatch.setattr(image_api_module, "MAX_PIXELS", 1000)
  response = client.post("/predict", content=encoded(picture()))
  assert response.status_code == 422
  assert "megapixels" in response.json()["error"]


def test_an_upload_is_cut_off_at_the_limit(image_api):
  received, sent = [], []

  async def receive():
    received.append(2**20)
    assert sum(received) < 2 * app.MAX_BYTES
    return {"type": "http.request", "body": bytes(2**20), "more_body": True}

  async def send(message):
    sent.append(message)

  scope = {
    "type": "http",
    "method": "POST",
    "path": "/predict",
    "query_string": b"",
    "headers": [(b"host", b"localhost")],
  }
  asyncio.run(app.make_app(image_api)(scope, receive, send))
  assert sent[0]["status"] == 413
  assert sum(received) == app.MAX_BYTES + 2**20


def test_switches_are_checked(client):
  response = client.post("/predict?detect=yes", content=b"")
  assert response.status_code == 400
  assert response.json()["error"] == "detect=yes must be 0 or 1."


@pytest.mark.parametrize(
  "host, status",
  [
    ("127.0.0.1:8000", 200),
    ("localhost:1", 200),
    ("[::1]:8000", 200),
    ("192.168.1.7", 200),
    ("evil.example", 400),
    ("127.0.0.1.evil.example:8000", 400),
    ("", 400),
    ("[", 400),
  ],
)
def test_other_host_names_are_refused(client, host, status):
  response = client.get("/model", headers={"host": host})
  assert response.status_code == status


def test_other_pages_cannot_post(client):
  content = encoded(picture())
  for site, status in [("cross-site", 403), ("same-origin", 200)]:
    headers = {"sec-fetch-site": site}
    response = client.post("/predict", content=content, headers=headers)
    assert response.status_code == status


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_link_in_another_page_opens_the_page_alone(client, site):
  link = {
    "sec-fetch-site": site,
    "sec-fetch-mode": "navigate",
    "sec-fetch-dest": "document",
  }
  assert client.get("/", headers=link).status_code == 200
  assert client.get("/model", headers=link).status_code == 403
  assert client.post("/predict", headers=link).status_code == 403
  for other in ({"sec-fetch-mode": "cors"}, {"sec-fetch-dest": "iframe"}):
    assert client.get("/", headers=link | other).status_code == 403


@pytest.mark.parametrize(
  "origin, status",
  [
    (LOCAL, 200),
    ("http://127.0.0.1:9000", 403),
    ("https://evil.example", 403),
    ("null", 403),
    ("", 403),
  ],
)
def test_browsers_without_sec_fetch_site_are_checked_by_origin(
  client, origin, status
):
  response = client.post(
    "/predict?detect=0&explain=0",
    content=encoded(picture()),
    headers={"origin": origin},
  )
  assert response.status_code == status


_opened: list[str] | None = None


def _note_writes(event, arguments):
  if event == "open" and _opened is not None:
    name, _, flags = arguments
    if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
      _opened.append(str(name))


def test_nothing_is_stored(client, monkeypatch):
  large = encoded(picture(1000, 1000))
  assert len(large) > 2**21  # Beyond what is often kept in memory.
  monkeypatch.setattr(sys.modules[__name__], "_opened", [])
  sys.addaudithook(_note_writes)
  assert client.post("/predict", content=large).status_code == 200
  assert _opened == []


def test_without_the_detector_whole_pictures_are_faces(trained):
  image_api = ImageApi(Predictor(trained), finds_faces=False)
  client = TestClient(app.make_app(image_api), base_url=LOCAL)
  assert client.get("/model").json()["detection"] is False
  content = encoded(picture())
  refused = client.post("/predict", content=content)
  assert refused.status_code == 422
  assert "pip install 'fer_jax[faces]'" in refused.json()["error"]
  answer = client.post("/predict?detect=0", content=content).json()
  assert len(answer["faces"]) == 1


def test_an_internal_error_is_one_sentence(image_api, monkeypatch):
  monkeypatch.setattr(Predictor, "crops", lambda *args: 1 / 0)
  client = TestClient(
    app.make_app(image_api), base_url=LOCAL, raise_server_exceptions=False
  )
  response = client.post("/predict", content=encoded(picture()))
  assert response.status_code == 500
  assert "terminal" in response.json()["error"]


def test_a_port_in_use_is_named():
  with server.listen("127.0.0.1", 0) as taken:
    port = taken.getsockname()[1]
    with pytest.raises(UserError, match=f"port={port}: .*port=0"):
      server.listen("127.0.0.1", port)
  for host in ("256.1.1.1", "a" * 70):
    with pytest.raises(UserError, match=f"host={host}"):
      server.listen(host, 0)


def test_addresses_are_told_apart():
  with (
    server.listen("127.0.0.1", 0) as alone,
    server.listen("0.0.0.0", 0) as all_,
  ):
    port = alone.getsockname()[1]
    assert server.is_loopback(alone) and not server.is_loopback(all_)
    assert server.url("127.0.0.1", alone) == f"http://127.0.0.1:{port}"
    assert "0.0.0.0" not in server.url("0.0.0.0", all_)
  assert server.names("127.0.0.1", True) == {"localhost", "127.0.0.1"}
  assert len(server.names("0.0.0.0", False)) > 2


def test_ctrl_c_ends_it(image_api):
  with server.listen("127.0.0.1", 0) as listener:
    found = []

    def visit():
      url = server.url("127.0.0.1", listener)
      try:
        with urllib.request.urlopen(url, timeout=20) as page:
          found.append(page.status)
      finally:
        os.kill(os.getpid(), signal.SIGINT)

    visitor = threading.Thread(target=visit)
    visitor.start()
    server.serve(app.make_app(image_api), listener)
    visitor.join()
  assert found == [200]


def test_a_missing_package_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, "uvicorn", None)
  monkeypatch.delitem(sys.modules, "fer_jax.serving.server")
  monkeypatch.delattr("fer_jax.serving.server")
  with pytest.raises(UserError, match=r"uvicorn: pip install 'fer_jax.demo.'"):
    demo.load_serving()
