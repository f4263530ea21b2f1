"""The demo's page in a real browser, served by the real server."""

import io
import threading

import headless
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="needs the extra `demo`")
pytest.importorskip("playwright", reason="needs playwright")

from playwright import sync_api

from fer_jax.serving import app, server


@pytest.fixture(scope="module")
def address(image_api):
  with server.listen("127.0.0.1", 0) as listener:
    running = server.make_server(app.make_app(image_api))
    thread = threading.Thread(target=running.run, args=([listener],))
    thread.start()
    yield server.url("127.0.0.1", listener)
    running.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def browser():
  with headless.browser() as launched:
    yield launched


@pytest.fixture
def page(browser, address):
  """The page; afterwards, that it loaded nothing from elsewhere."""
  page = browser.new_page()
  page.set_default_timeout(20_000)
  page.complaints, asked = headless.watch(page)
  page.goto(address)
  sync_api.expect(page.locator("#model")).to_contain_text("tiny on bars")
  yield page
  page.close()
  assert asked and all(
    url.startswith((f"{address}/", "data:", f"blob:{address}/"))
    for url in asked
  )


def upload(page, pixels):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG")
  content = {
    "name": "a.png",
    "mimeType": "image/png",
    "buffer": file.getvalue(),
  }
  page.set_input_files("#file", content)


def picture():
  rng = np.random.default_rng(0)
  return rng.integers(1, 256, size=(300, 400, 3), dtype=np.uint8)


def drawn(locator):
  """Whether an image is shown, and not a broken one."""
  sync_api.expect(locator).to_be_visible()
  return locator.evaluate("image => image.decode().then(() => true)")


def test_a_picture_is_answered(page):
  sync_api.expect(page.locator("#invite")).to_be_visible()
  upload(page, picture())
  card = page.locator(".card")
  sync_api.expect(card).to_have_count(1)
  assert drawn(page.locator("#picture"))
  assert drawn(card.locator(".crop")) and drawn(card.locator(".gradcam"))
  label = card.locator(".label").inner_text()
  assert label in "abcdefg"
  sync_api.expect(card.locator("tbody tr")).to_have_count(7)
  sync_api.expect(card.locator("tr.best th")).to_have_text(label)
  sync_api.expect(page.locator("#status")).to_contain_text(f": {label} ")
  best = card.locator("tr.best .bar div").bounding_box()
  assert best and best["width"] > 0
  box = page.locator(".box").bounding_box()
  whole = page.locator("#picture").bounding_box()
  assert box["x"] == pytest.approx(whole["x"], abs=1)
  assert box["width"] == pytest.approx(whole["width"] / 2, abs=1)
  assert box["height"] == pytest.approx(whole["height"], abs=1)
  assert page.complaints == []


def test_a_box_leads_to_its_face(page):
  upload(page, picture())
  page.locator(".box").press("Enter")
  sync_api.expect(page.locator(".card")).to_be_focused()


def test_options_ask_again(page):
  upload(page, picture())
  sync_api.expect(page.locator(".gradcam")).to_be_visible()
  page.locator("#explain").uncheck()
  sync_api.expect(page.locator(".gradcam")).to_be_hidden()
  page.locator("#detect").uncheck()
  sync_api.expect(page.locator(".card")).to_be_visible()
  sync_api.expect(page.locator(".box")).to_be_hidden()
  assert page.complaints == []


def test_no_face_offers_a_way_out(page):
  upload(page, 0 * picture())
  sync_api.expect(page.locator("#status")).to_contain_text("No face was found.")
  page.locator("#whole").click()
  sync_api.expect(page.locator(".card")).to_be_visible()
  sync_api.expect(page.locator("#whole")).to_be_hidden()
  assert page.complaints == []


def test_what_is_no_picture_is_said(page):
  content = {"name": "a.txt", "mimeType": "text/plain", "buffer": b"hello"}
  page.set_input_files("#file", content)
  sync_api.expect(page.locator("#error")).to_contain_text("not a picture")
  sync_api.expect(page.locator("#invite")).to_be_visible()
  upload(page, picture())
  sync_api.expect(page.locator(".card")).to_be_visible()
  sync_api.expect(page.locator("#error")).to_be_hidden()


def test_too_large_a_picture_is_not_sent(page):
  large = {"name": "a.png", "buffer": bytes(app.MAX_BYTES + 1), "mimeType": ""}
  page.set_input_files("#file", large)
  sync_api.expect(page.locator("#error")).to_contain_text("larger than 10 MiB")
  assert page.complaints == []


def test_the_webcam_gives_pictures_and_is_live(page):
  page.locator("#start").click()
  page.locator("#take").click()
  assert drawn(page.locator("#picture"))
  sync_api.expect(page.locator(".card")).to_be_visible()
  with page.expect_response("**/predict*"), page.expect_response("**/predict*"):
    page.locator("#live").check()
  sync_api.expect(page.locator("#video")).to_be_visible()
  sync_api.expect(page.locator(".box")).to_be_visible()
  page.locator("#stop").click()
  sync_api.expect(page.locator("#invite")).to_be_visible()
  assert page.evaluate("document.getElementById('video').srcObject") is None
  assert page.complaints == []
