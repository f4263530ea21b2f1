"""Pages in a real browser, for tests; they skip where there is none."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_ARGUMENTS = (
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  # A webcam that shows a moving pattern, and nobody to ask.
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
  """A Chromium without a window, of this machine."""
  playwright = pytest.importorskip("playwright.sync_api")
  path = next(filter(None, map(shutil.which, _BROWSERS)), None)
  if path is None:
    pytest.skip(f"there is none of {', '.join(_BROWSERS)} on the PATH")
  with playwright.sync_playwright() as driver:
    launched = driver.chromium.launch(
      executable_path=path, args=list(_ARGUMENTS)
    )
    yield launched
    launched.close()


def watch(page: Any) -> tuple[list[str], list[str]]:
  """Notes what a page complains of and what it asks for, from now on.

  Returns:
    Errors and warnings; addresses.
  """
  complaints: list[str] = []
  asked: list[str] = []

  def note(message: Any) -> None:
    if message.type in ("error", "warning"):
      complaints.append(message.text)

  page.on("pageerror", lambda error: complaints.append(str(error)))
  page.on("console", note)
  page.on("request", lambda request: asked.append(request.url))
  return complaints, asked


def check_file(path: pathlib.Path, title: str) -> None:
  """Opens a page that stands alone, light and dark, and looks it over.

  Nothing is complained of or loaded from elsewhere, every picture is shown,
  the dark page has pictures of its own, and nothing is wider than the page.
  """
  with browser() as launched:
    sources = []
    for scheme in ("light", "dark"):
      page = launched.new_page(color_scheme=scheme)
      complaints, asked = watch(page)
      page.goto(path.as_uri())
      assert page.locator("h1").inner_text() == title
      images = page.locator("img")
      assert images.count() > 3
      for image in images.all():
        assert image.evaluate("one => one.decode().then(() => one.width)") > 0
      sources.append(images.evaluate_all("all => all.map(i => i.currentSrc)"))
      assert page.evaluate("document.body.scrollWidth <= innerWidth")
      assert complaints == []
      assert all(url.startswith(("file:", "data:")) for url in asked)
      page.close()
    light, dark = sources
    assert light != dark
