"""The report of a workdir: files, numbers, and a page that stands alone."""

import dataclasses
import html.parser
import json

import headless
import numpy as np
import pytest
import trained_run
from PIL import Image

from fer_jax import api
from fer_jax.errors import UserError
from fer_jax.evaluation import html_page, predictions, report
from fer_jax.inference.trained_model import TrainedModel

pytestmark = pytest.mark.usefixtures("tiny_model")


@pytest.fixture
def trained():
  return TrainedModel.load(trained_run.workdir())


class Page(html.parser.HTMLParser):
  """Collects what a page loads, and whether its tags close."""

  def __init__(self):
    super().__init__()
    self.sources, self.open = [], []

  def handle_starttag(self, tag, attributes):
    """Notes a tag."""
    for name, value in attributes:
      if name in ("src", "srcset", "href"):
        self.sources.append(value)
    if tag not in ("meta", "img", "source", "link", "br"):
      self.open.append(tag)

  def handle_endtag(self, tag):
    """Closes the last tag."""
    assert self.open.pop() == tag


def test_a_report_of_two_splits(trained, tmp_path):
  for split in ("validation", "test"):
    found = report.results_of(predictions.predict([trained], split))
    files = report.write(found, [trained], tmp_path / "report")
    assert all(path.is_file() for path in files)
  metrics = json.loads((tmp_path / "report/metrics.json").read_text())
  assert list(metrics) == ["validation", "test"]
  predicted = trained.probabilities(found.predictions.images).argmax(1)
  right = np.mean(predicted == found.predictions.targets)
  assert metrics["test"]["accuracy"] == pytest.approx(right)
  assert metrics["test"]["num_leaks"] == 0
  assert f"{right:.2%}"[:-1] in str(found)
  text = (tmp_path / "report/index.html").read_text()
  page = Page()
  page.feed(text)
  assert not page.open
  assert len(page.sources) >= 2 * (2 * 4 + 1)
  assert all(s.startswith("data:image/png;base64,") for s in page.sources)
  assert f"{100 * right:.2f} %" in text
  assert "prefers-color-scheme: dark" in text
  changed = tmp_path / "report/test_predictions.csv"
  changed.write_text("my notes")
  report.check_output(tmp_path / "report", "validation")
  with pytest.raises(UserError, match="test_predictions.csv .*changed since"):
    report.check_output(tmp_path / "report", "test")
  metrics["validation"] |= {"checkpoint": "latest", "epochs": [300]}
  (tmp_path / "report/metrics.json").write_text(json.dumps(metrics))
  text = html_page.page(tmp_path / "report", trained)
  head, first, second, _ = text.split("<h2", 3)
  assert "checkpoint, epoch" not in head
  assert "latest checkpoint, epoch 300" in first
  assert f"best checkpoint, epoch {trained.epoch}" in second


def test_the_page_in_a_browser(trained, tmp_path):
  found = report.results_of(predictions.predict([trained], "validation"))
  *_, page = report.write(found, [trained], tmp_path)
  headless.check_file(page, "tiny on bars")


def test_images_of_the_training_split_are_left_out_of_the_second_score(trained):
  whole = predictions.predict([trained], "validation")
  leaks = np.arange(len(whole.labels)) < 10
  found = report.results_of(dataclasses.replace(whole, leaks=leaks))
  rest = np.mean((whole.predicted == whole.labels)[10:])
  assert found.leak_free is not None
  assert found.leak_free.accuracy == pytest.approx(rest)
  assert "without the 10 images" in str(found)
  assert found.to_json()["leak_free"]["num_images"] == len(whole.labels) - 10


def test_mistakes_are_drawn(trained, tmp_path):
  whole = predictions.predict([trained], "validation")
  sheet = report.mistakes_sheet(whole)
  assert isinstance(sheet, Image.Image) and sheet.width > 300


def test_a_place_that_cannot_be_written_is_named(trained, tmp_path):
  (tmp_path / "file").write_text("")
  found = report.results_of(predictions.predict([trained], "test"))
  with pytest.raises(UserError, match="cannot write "):
    report.write(found, [trained], tmp_path / "file")


def test_a_folder_of_the_users_is_not_mixed_with_a_report(trained, tmp_path):
  (tmp_path / "index.html").write_text("the user's own")
  found = report.results_of(predictions.predict([trained], "test"))
  with pytest.raises(UserError, match="new or empty folder"):
    report.write(found, [trained], tmp_path)
  assert (tmp_path / "index.html").read_text() == "the user's own"


@pytest.mark.parametrize("content", ["{broken", '{"loss": 1}'])
def test_metrics_of_another_program_stay_as_they_are(
  content, trained, tmp_path, monkeypatch
):
  monkeypatch.setattr(predictions, "predict", pytest.fail)  # Checked before.
  (tmp_path / "metrics.json").write_text(content)
  with pytest.raises(UserError, match="new or empty folder"):
    api.evaluate_model(trained_run.workdir(), output=tmp_path)
  assert (tmp_path / "metrics.json").read_text() == content
  with pytest.raises(UserError, match="cannot write "):
    api.evaluate_model(
      trained_run.workdir(), output=tmp_path / "metrics.json/report"
    )


def test_results_are_shown_before_the_report_is_written(trained, tmp_path):
  shown = []

  def show(results):
    shown.append(results)
    (tmp_path / "report").write_text("in the way")

  with pytest.raises(UserError, match="cannot write "):
    api.evaluate_model(
      trained_run.workdir(), output=tmp_path / "report", show=show
    )
  assert shown[0].scores.num_images == 30
