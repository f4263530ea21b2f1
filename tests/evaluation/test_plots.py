"""Tests of fer_jax.evaluation.plots and its theme."""

import io
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from fer_jax.evaluation import plots
from fer_jax.evaluation.scores import Scores, score
from fer_jax.plot_theme import contrast, readable, to_png

COUNTS = np.array([[1200, 34, 0], [5, 91, 4], [0, 0, 0]])
NAMES = ("happy", "sad", "fear")


def cells(figure: Figure) -> list[list[str]]:
  """The texts in a matrix, by their places."""
  axes = figure.axes[0]
  size = math.isqrt(len(axes.texts))
  found = [[""] * size for _ in range(size)]
  for text in axes.texts:
    x, y = text.get_position()
    found[int(y)][int(x)] = text.get_text()
  return found


def size(figure: Figure) -> tuple[int, int]:
  with Image.open(io.BytesIO(to_png(figure))) as picture:
    return picture.size


@pytest.fixture
def scores() -> Scores:
  rng = np.random.default_rng(0)
  labels = rng.integers(3, size=200) % 2  # none of the third
  odds = np.exp(rng.normal(size=(200, 3)))
  odds[np.arange(200), labels] *= 4
  p = odds / odds.sum(axis=1, keepdims=True)
  return score(p, labels, NAMES, num_bootstrap=0)


def test_cells_hold_the_counts():
  figure: Any = plots.confusion_matrix(COUNTS, NAMES, False, "a $title$")
  assert cells(figure) == [
    ["1,200", "34", "0"],
    ["5", "91", "4"],
    ["0", "0", "0"],
  ]
  axes = figure.axes[0]
  assert [label.get_text() for label in axes.get_xticklabels()] == [*NAMES]
  assert [label.get_text() for label in axes.get_yticklabels()] == [*NAMES]
  low, high = axes.get_ylim()
  assert low > high  # the first class on top
  assert figure.get_suptitle() == "a $title$"
  assert len(figure.axes) == 2  # a scale: the color is not the count


def test_cells_hold_percentages_of_rows():
  figure: Any = plots.confusion_matrix(COUNTS, NAMES, True)
  assert cells(figure) == [
    ["97.2", "2.8", "0"],
    ["5.0", "91.0", "4.0"],
    ["-", "-", "-"],
  ]
  rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
  assert rows == ["happy (1,234)", "sad (100)", "fear (0)"]
  assert len(figure.axes) == 1


@pytest.mark.parametrize("normalized", [False, True])
def test_colors_are_shares_of_rows(normalized):
  figure: Any = plots.confusion_matrix(COUNTS, NAMES, normalized)
  shares = figure.axes[0].collections[0].get_array()
  totals = np.array([[1234], [100], [1]])
  np.testing.assert_allclose(np.reshape(shares, (3, 3)), COUNTS / totals)


@pytest.mark.parametrize("dark", [False, True])
def test_every_number_can_be_read(dark):
  counts = np.random.default_rng(0).integers(0, 50, size=(10, 10))
  counts[np.arange(10), np.arange(10)] *= np.arange(10) * 3
  figure: Any = plots.confusion_matrix(counts, "abcdefghij", True, dark=dark)
  figure.canvas.draw()  # where a mesh gets its colors
  axes = figure.axes[0]
  grounds = axes.collections[0].get_facecolor()
  for text in axes.texts:
    x, y = text.get_position()
    ground = tuple(grounds[10 * int(y) + int(x)])
    assert contrast(to_rgb(text.get_color()), ground) >= 4.5


@given(st.tuples(*[st.floats(0, 1)] * 3))
def test_some_ink_is_readable_on_any_color(ground):
  assert contrast(to_rgb(readable(ground)), ground) >= 4.5


@pytest.mark.parametrize("names", ["abc", [f"class $ {i}" for i in range(10)]])
def test_few_and_many_classes_fit(names):
  counts = np.arange(len(names) ** 2).reshape(len(names), -1)
  figure: Any = plots.confusion_matrix(counts, names, False)
  width, height = size(figure)
  assert 500 <= width <= 1300 and 500 <= height <= 1200
  renderer, axes = figure.canvas.get_renderer(), figure.axes[0]
  boxes = [
    label.get_window_extent(renderer)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels())
  ]
  for box in boxes:
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width
  if len(names) == 3:  # upright names do not touch
    for left, right in zip(boxes[:2], boxes[1:3], strict=True):
      assert left.x1 < right.x0


@pytest.mark.parametrize("dark", [False, True])
def test_reliability_shows_the_bins_and_the_error(scores, dark):
  figure: Any = plots.reliability_diagram(scores.calibration, dark=dark)
  upper, lower = figure.axes
  bins = [one for one in scores.calibration.bins if one.count]
  few = [one for one in bins if one.count < plots.FEW]
  assert 0 < len(few) < len(bins)
  heights = {bar.get_x(): bar.get_height() for bar in upper.patches}
  assert heights == {one.low: pytest.approx(one.accuracy) for one in bins}
  pale = [bar.get_x() for bar in upper.patches if bar.get_alpha() < 1]
  assert pale == [one.low for one in few]
  counts = [bar.get_height() for bar in lower.patches]
  assert counts == [one.count for one in bins] and sum(counts) == 200
  lines = [segment[0][1] for segment in upper.collections[0].get_segments()]
  assert lines == pytest.approx([one.confidence for one in bins])
  error = f"ECE {scores.calibration.error:.2%}"
  assert upper.get_title(loc="left") == error
  labels = [text.get_text() for text in lower.get_legend().get_texts()]
  assert labels[0] == f"accuracy {scores.accuracy:.1%}"
  legend = upper.get_legend()
  size(figure)
  # The error and the legend share a line without touching.
  renderer = figure.canvas.get_renderer()
  assert (
    upper._left_title.get_window_extent(renderer).x1
    < legend.get_window_extent(renderer).x0
  )


def test_bars_are_the_scores_of_classes(scores):
  figure: Any = plots.per_class_bars(scores)
  axes = figure.axes[0]
  rows = [label.get_text() for label in axes.get_yticklabels()]
  expected = [f"{one.name} ({one.support})" for one in scores.per_class]
  assert rows == [*expected, "macro average (200)"]
  found = [*scores.per_class, scores.macro]
  texts = [text.get_text() for text in axes.texts]
  for i, (name, bars) in enumerate(
    zip(("recall", "precision", "f1"), axes.containers, strict=True)
  ):
    values = [getattr(one, name) for one in found]
    widths = [bar.get_width() for bar in bars.patches]
    assert widths == pytest.approx(np.nan_to_num(values))
    shown = ["-" if math.isnan(v) else f"{100 * v:.1f}" for v in values]
    assert texts[4 * i : 4 * i + 4] == shown
  assert texts[2] == "-"  # the third class has no row, so no recall
  labels = [text.get_text() for text in axes.get_legend().get_texts()]
  assert labels == ["recall", "precision", "F1"]


def test_a_dark_page_is_dark(scores):
  for draw in (
    lambda dark: plots.confusion_matrix(COUNTS, NAMES, dark=dark),
    lambda dark: plots.reliability_diagram(scores.calibration, dark=dark),
    lambda dark: plots.per_class_bars(scores, dark=dark),
  ):
    for dark in (False, True):
      png = to_png(draw(dark))
      with Image.open(io.BytesIO(png)) as picture:
        corner: Any = picture.convert("L").getpixel((0, 0))
      assert (corner < 40) == dark and (corner == 255) == (not dark)
      assert png == to_png(draw(dark))
