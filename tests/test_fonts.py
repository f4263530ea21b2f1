"""Class names of any script in plots: their glyphs, or numbers, no warnings."""

import logging
import warnings

import numpy as np
import pytest

from fer_jax import fonts
from fer_jax.data.inspect import image_sheets
from fer_jax.evaluation import plots

UNKNOWN = ("\U000fabc1", "\U000fabc2")  # for private use


@pytest.mark.parametrize("names", [("ł", "кот"), UNKNOWN, ("高兴", "悲伤 😢")])
def test_plots_of_any_script_raise_no_warning(names, tmp_path, caplog):
  fonts.drawable_labels.cache_clear()
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    with fonts.matplotlib_fonts(names):
      for normalised in (True, False):
        figure = plots.confusion_matrix(np.eye(2, dtype=int), names, normalised)
        figure.savefig(tmp_path / "a.png")
    images = np.zeros((4, 48, 48, 1), np.uint8)
    image_sheets.contact_sheet(
      images.__getitem__, np.array([0, 1, 0, 1]), names
    )
  numbered = fonts.drawn_names(names) == ["#0", "#1"]
  assert len(caplog.records) == numbered
  if names == UNKNOWN:
    assert numbered and caplog.records[0].levelno == logging.WARNING


def test_emoji_are_dropped_where_the_rest_can_be_drawn():
  assert fonts.drawn_names(["happy \U0001fae8", "sad"]) == ["happy", "sad"]


def test_names_that_would_become_one_are_numbered():
  assert fonts.drawn_names(["a \U0001fae8", "a"]) == ["#0", "#1"]


def test_the_extra_draws_chinese_japanese_and_korean(monkeypatch, tmp_path):
  if not fonts._packaged_fonts():
    pytest.skip("the extra `cjk` is missing")
  from matplotlib import font_manager

  # A system without fonts: only what Matplotlib brings and the extra.
  brought = [
    entry
    for entry in font_manager.fontManager.ttflist
    if "mpl-data" in entry.fname
  ]
  monkeypatch.setattr(font_manager.fontManager, "ttflist", brought)
  monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
  caches = (fonts._fonts, fonts.drawable_labels)
  for cache in caches:
    cache.cache_clear()
  names = ("高兴", "嬉しい", "행복", "sad")
  try:
    assert fonts.drawn_names(names) == list(names)
    font = fonts.drawable_labels(names).font
    assert font.family == "Noto Sans CJK JP"
    masks = {bytes(font.at_size(20).getmask(name)) for name in names}
    assert len(masks) == len(names)  # no boxes
    with warnings.catch_warnings(), fonts.matplotlib_fonts(names):
      warnings.simplefilter("error")
      figure = plots.confusion_matrix(np.eye(4, dtype=int), names, False)
      figure.savefig(tmp_path / "a.png")
  finally:
    for cache in caches:
      cache.cache_clear()
