"""Fonts for class names of any script, in pictures and plots.

Matplotlib brings DejaVu Sans (Latin, Greek, Cyrillic and more). For other
scripts the system's fonts are searched, then Noto Sans CJK (OFL) of the extra
`cjk`: Chinese, Japanese and Korean. Without one, classes are numbered.
"""

import contextlib
import functools
import importlib.util
import logging
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import ImageFont

from fer_jax.text_output import printable

_DEFAULT = "DejaVu Sans"
_PACKAGE = "noto_cjk_sans_jp_regular"  # of the extra `cjk`
_HELP = (
  "install a font that has them, or for Chinese, Japanese and Korean: pip"
  " install noto-cjk-sans-jp-regular"
)


class Font(NamedTuple):
  """A font file.

  Attributes:
    path: of the file.
    family: the name Matplotlib knows it by.
  """

  path: str
  family: str

  def at_size(self, pixels: int) -> ImageFont.FreeTypeFont:
    """Returns the font for Pillow at a height in pixels."""
    return ImageFont.truetype(self.path, pixels)


class Labels(NamedTuple):
  """Class names as they can be drawn.

  Attributes:
    names: class name -> what is drawn: itself, or its number.
    font: has every glyph of them.
    legend: one line that says what the numbers stand for; "" without numbers.
  """

  names: dict[str, str]
  font: Font
  legend: str

  def text(self, name: str) -> str:
    """Returns what to draw for a class name."""
    return self.names.get(name, name)


@functools.lru_cache(maxsize=32)
def drawable_labels(class_names: tuple[str, ...]) -> Labels:
  """Returns labels for class names, and a font that can draw them.

  Where no font has all glyphs, the classes are numbered from 0, and one warning
  says so, with the legend.

  Args:
    class_names: of any script.

  >>> drawable_labels(("ł", "кот")).names
  {'ł': 'ł', 'кот': 'кот'}
  """
  plain = tuple(_without_symbols(name) for name in class_names)
  for drawn in (class_names, plain):
    font = find_font(drawn) if len(set(drawn)) == len(class_names) else None
    if font and all(drawn):
      return Labels(dict(zip(class_names, drawn, strict=True)), font, "")
  numbers = {name: f"#{i}" for i, name in enumerate(class_names)}
  legend = ", ".join(f"{n} = {printable(name)}" for name, n in numbers.items())
  logging.getLogger(__name__).warning(
    "no font for all class names, so pictures number them (%s): %s",
    legend,
    _HELP,
  )
  font = find_font(())
  assert font is not None
  return Labels(numbers, font, legend)


def drawn_names(class_names: Iterable[str]) -> list[str]:
  """Returns class names as pictures show them, see `drawable_labels`."""
  names = tuple(class_names)
  labels = drawable_labels(names)
  return [labels.text(name) for name in names]


def _without_symbols(name: str) -> str:
  """Returns a name without emoji, which few fonts that draw text have."""
  kept = (
    c
    for c in name
    if unicodedata.category(c) not in ("So", "Sk", "Cf", "Cn") and c != "\ufe0f"
  )
  return "".join(kept).strip() or name


def find_font(texts: Iterable[str]) -> Font | None:
  """Returns a font with every glyph of some texts, None if there is none.

  Args:
    texts: spaces are ignored, of which fonts have few kinds.
  """
  wanted = frozenset(ord(c) for text in texts for c in text if not c.isspace())
  return next((font for font in _fonts() if wanted <= _glyphs(font)), None)


@contextlib.contextmanager
def matplotlib_fonts(class_names: Iterable[str]) -> Iterator[None]:
  """Lets Matplotlib draw class names: create and save figures in it.

  Args:
    class_names: as `drawn_names` returns them, or before.
  """
  import matplotlib  # takes a while

  font = drawable_labels(tuple(class_names)).font
  families = list(dict.fromkeys((_DEFAULT, font.family)))
  logger = logging.getLogger("matplotlib.font_manager")
  level = logger.level
  logger.setLevel(logging.ERROR)  # a font may lack a bold face
  try:
    with matplotlib.rc_context({"font.family": families}):
      yield
  finally:
    logger.setLevel(level)


@functools.cache
def _fonts() -> tuple[Font, ...]:
  """Returns the regular fonts that are installed, DejaVu Sans first."""
  from matplotlib import font_manager  # takes a while

  default = font_manager.findfont(_DEFAULT)
  entries = [
    Font(str(entry.fname), entry.name)
    for entry in font_manager.fontManager.ttflist
    if entry.style == "normal"
    and entry.weight in (400, "regular", "normal")
    and "lastresort" not in entry.fname.lower()  # draws boxes for everything
  ]
  listed = {font.path: font for font in sorted(entries)}
  # Fonts that were installed after Matplotlib made its list.
  known = {str(e.fname) for e in font_manager.fontManager.ttflist}
  for path in [*sorted(font_manager.findSystemFonts()), *_packaged_fonts()]:
    if path not in known:
      try:
        listed[path] = Font(path, font_manager.get_font(path).family_name)
        font_manager.fontManager.addfont(path)
      except (OSError, RuntimeError):  # damaged, or of bitmaps
        continue
  return Font(str(default), _DEFAULT), *listed.values()


def _packaged_fonts() -> list[str]:
  """Returns the font files of the extra `cjk`, none if it is not installed."""
  spec = importlib.util.find_spec(_PACKAGE)
  folders = spec.submodule_search_locations if spec else None
  return [str(path) for f in folders or [] for path in Path(f).glob("*.otf")]


@functools.cache
def _glyphs(font: Font) -> frozenset[int]:
  """Returns the code points a font has; none if Pillow cannot use it."""
  from matplotlib import font_manager

  try:
    found = frozenset(font_manager.get_font(font.path).get_charmap())
    font.at_size(16)
  except (OSError, RuntimeError, ValueError):
    return frozenset()
  return found
