"""Tests of fer_jax.training.logging.curves."""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from fer_jax import plot_theme
from fer_jax.errors import UserError
from fer_jax.training.logging import curves


def _records(num_epochs: int) -> list[dict[str, Any]]:
  rows: list[dict[str, Any]] = []
  for epoch in range(1, num_epochs + 1):
    rows.append({"kind": "train", "epoch": epoch, "step": epoch, "loss": 9.0})
    rows.append(
      {
        "kind": "epoch",
        "epoch": epoch,
        "step": epoch,
        "train_loss": 2 / epoch,
        "train_accuracy": 1 - 0.8 / epoch,
        "validation_loss": 1 + (epoch - 12) ** 2 / 400,
        "validation_accuracy": 0.6 - (epoch - 12) ** 2 / 4000,
        "learning_rate": 1e-3 / epoch,
        "best": epoch <= 12,
      }
    )
  return rows


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
  """The figures that are drawn."""
  drawn: list[Figure] = []

  class Kept(Figure):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
      super().__init__(*args, **kwargs)
      drawn.append(self)

  monkeypatch.setattr(plot_theme, "Figure", Kept)
  return drawn


def _points(line: Line2D) -> list[tuple[float, float]]:
  """Epochs and values of a line."""
  return [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())]


def _count(path: Path, color: str) -> int:
  """Pixels of a colour."""
  rgb = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
  with Image.open(path) as picture:
    pixels = np.asarray(picture.convert("RGB"))
  return int((pixels == np.array(rgb)).all(axis=-1).sum())


@pytest.mark.parametrize("num_epochs", [1, 5, 50])
def test_picture_shows_both_splits(tmp_path: Path, num_epochs: int) -> None:
  path = tmp_path / "curves.png"
  curves.draw(_records(num_epochs), path, "resnet18 on $fer2013")
  with Image.open(path) as picture:
    assert picture.size == (1200, 450)
  for color in ("#0072B2", "#D55E00"):
    assert _count(path, color) > 50
  assert os.listdir(tmp_path) == ["curves.png"]


def test_lines_and_best_epoch(tmp_path: Path, figures: list[Figure]) -> None:
  curves.draw(_records(50), tmp_path / "curves.png", "title")
  loss, accuracy, rate = figures[0].axes
  train, validation, best = loss.get_lines()
  assert [epoch for epoch, _ in _points(train)] == list(range(1, 51))
  assert _points(train)[0] == (1, 2.0)
  assert _points(validation)[11] == (12, 1.0)
  assert _points(best) == [(12, 1.0)]
  assert best.get_label() == "best: 1.000 (epoch 12)"
  assert accuracy.get_lines()[2].get_label() == "best: 60.0% (epoch 12)"
  assert _points(rate.get_lines()[0])[0] == pytest.approx((1, 1.0))
  assert "10^{-3}" in rate.get_ylabel()


@pytest.mark.parametrize("num_epochs", [1, 2, 5, 50, 300])
def test_no_tick_is_half_an_epoch_and_no_text_leaves_the_picture(
  tmp_path: Path, figures: list[Figure], num_epochs: int
) -> None:
  curves.draw(_records(num_epochs), tmp_path / "curves.png", "title")
  boxes = []
  for axes in figures[0].axes:
    low, high = axes.get_xlim()
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(tick == round(tick) for tick in ticks)
    box = axes.get_tightbbox()
    assert box is not None
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 1200 and box.y1 <= 450
    boxes.append(box)
  for left, right in zip(boxes, boxes[1:], strict=False):
    assert left.x1 <= right.x0


def test_what_is_not_a_number_is_a_gap(
  tmp_path: Path, figures: list[Figure]
) -> None:
  rows = _records(4)
  rows[5]["validation_loss"] = None
  for row in rows:
    row.pop("learning_rate", None)
    row["best"] = row["epoch"] == 3
  curves.draw(rows, tmp_path / "curves.png", "title")
  validation = figures[0].axes[0].get_lines()[1]
  gaps = [math.isnan(value) for _, value in _points(validation)]
  assert gaps == [False] * 2 + [
    True,
    False,
  ]


def test_no_epoch_is_an_error(tmp_path: Path) -> None:
  with pytest.raises(UserError, match="no epoch to plot"):
    curves.draw([{"kind": "train", "epoch": 1}], tmp_path / "c.png", "title")


def test_a_failed_write_leaves_the_old_picture(
  tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  path = tmp_path / "curves.png"
  path.write_bytes(b"old")

  def full(*_: Any) -> None:
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(os, "replace", full)
  with pytest.raises(UserError, match=r"curves\.png: No space left"):
    curves.draw(_records(1), path, "title")
  assert path.read_bytes() == b"old"
