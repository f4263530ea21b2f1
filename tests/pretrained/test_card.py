"""Scores of a released model, written into its model card."""

import re

import numpy as np
import pytest
import tiny_run
import trained_run
from PIL import Image

from fer_jax.errors import UserError
from fer_jax.evaluation.predictions import Predictions
from fer_jax.pretrained import card, release


def evaluation(labels, predicted, views="none", confidence=0.7):
  """Predictions of three classes, one image in four with a leak."""
  probabilities = np.full((len(labels), 3), (1 - confidence) / 2, np.float32)
  probabilities[np.arange(len(labels)), predicted] = confidence
  found = Predictions(
    split="validation",
    class_names=("happy", "sad", "contempt"),
    images=np.zeros((len(labels), 4, 4, 1), np.uint8),
    targets=np.asarray(labels),
    rows=np.arange(len(labels)),
    splits=["validation"] * len(labels),
    probabilities=probabilities,
    leaks=np.arange(len(labels)) % 4 == 0,
  )
  return card.Evaluation("validation images", views, found)


def test_figures_are_those_of_the_predictions():
  labels = np.repeat([0, 1], [60, 40])
  predicted = labels.copy()
  predicted[:6] = 1  # 54 of 60 happy and 40 of 40 sad are right.
  one = evaluation(labels, predicted)
  text = "\n".join(card.render([one], temperature=1.0))
  cells = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in text.splitlines()
  ]
  # Wilson's interval of 94 in 100 by hand: center 0.9237, half width 0.0474.
  assert ["100 validation images", "94.0 %", "87.5-97.2 %"] in cells
  assert ["without leaks, 75", "94.7 %", "87.1-97.9 %"] in cells
  assert ["happy", "60", "90.0 %", "79.9-95.3 %", "100.0 %"] in cells
  assert ["sad", "40", "100.0 %", "91.2-100.0 %", "87.0 %"] in cells
  assert ["contempt", "0", "-", "-", "-"] in cells
  assert "The mean recall of the classes is 95.0 %." in text
  # 94 % are right at a confidence of 0.7.
  assert ["100 validation images", "0.240", "0.240"] in cells


def test_all_images_may_be_in_the_training_split():
  one = evaluation([0, 1], [0, 0])
  one.found.leaks[:] = True
  assert release.scores_of(one.found, 1.0)["accuracy_without_leaks"] == 0.5
  assert "without leaks" not in "".join(card.render([one], temperature=1.0))


def test_calibration_before_the_temperature():
  one = evaluation([0] * 10, [0] * 10, confidence=0.5)
  text = "\n".join(card.render([one], temperature=2.0))
  before = 1 - 0.5**2 / (0.5**2 + 2 * 0.25**2)
  assert f"| {before:.3f} |" in re.sub(" +", " ", text)


def test_release_writes_the_card(tmp_path, monkeypatch):
  tiny_run.register(monkeypatch)
  page = tmp_path / "docs" / "models" / "tiny.md"
  page.parent.mkdir(parents=True)
  page.write_text(
    f"# Tiny\n\nBefore.\n\n{card.START}\nold\n{card.END}\n\nAfter."
  )
  data = str(trained_run.folder() / "prepared")
  info = release.release(trained_run.workdir(), "tiny", tmp_path, data_dir=data)
  card.write("tiny", page, tmp_path, data_dir=data)
  text = page.read_text()
  assert text.startswith("# Tiny\n\nBefore.\n\n<!--") and "old" not in text
  assert text.endswith("-->\n\nAfter.")
  accuracy = f"{info['validation']['accuracy']:.1%}".replace("%", " %")
  assert f"50 validation images | {accuracy}" in re.sub(" +", " ", text)
  assert "--tta=flip" in text
  picture = tmp_path / "docs" / "images" / "tiny_confusion.png"
  with Image.open(picture) as image:
    assert image.width > 400
  card.write("tiny", page, tmp_path, data_dir=data)
  assert page.read_text() == text


def test_a_page_without_marks_is_one_line(tmp_path):
  page = tmp_path / "card.md"
  page.write_text("# Card")
  with pytest.raises(UserError, match="must have the lines"):
    card.write("ferplus-small", page)
  with pytest.raises(UserError, match="cannot read page="):
    card.write("ferplus-small", tmp_path / "none.md")
