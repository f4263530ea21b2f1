"""Sheets of many images: one row per class, or groups with captions."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from fer_jax import fonts
from fer_jax.data.image_arrays import to_pillow
from fer_jax.data.views import labels_of
from fer_jax.output_folder import write_output
from fer_jax.text_output import counted

# A group's title, and its images with the caption of each, of any lines.
Group = tuple[str, Sequence[tuple[UInt8[np.ndarray, "h w c"], str]]]

# Pixels of a sheet. An image is scaled by an integer, so that its pixels
# stay sharp squares, to at most TILE, or shrunk to it.
TILE = 96
_GAP = 4
_MARGIN = 16
_TITLE_SIZE = 20
_NAME_SIZE = 17
_SMALL_SIZE = 14
_LINE = 18  # of small text
_INK = (28, 28, 32)
_GREY = (110, 110, 118)


def contact_sheet(
  read: Callable[[Int[np.ndarray, " m"]], UInt8[np.ndarray, "m h w c"]],
  targets: np.ndarray,
  class_names: Sequence[str],
  *,
  columns: int = 12,
  seed: int = 0,
  title: str = "",
) -> Image.Image:
  """Draws a row of images per class, with its name and count at the left.

  Args:
    read: returns the images at some places, gray (c = 1) or color (c = 3).
    targets: class numbers `[n]`, or weights of the classes `[n k]`, of which
      the highest counts.
    class_names: one per row, in this order; a class without images has an
      empty row.
    columns: images per row, at most.
    seed: seed of the random choice, which is made for each class separately.
    title: a line above the rows; none if empty.
  """
  labels = labels_of(targets)
  class_names = fonts.drawn_names(class_names)
  name_font, small_font = _font(_NAME_SIZE, class_names), _font(_SMALL_SIZE, "")
  members = [np.flatnonzero(labels == k) for k in range(len(class_names))]
  picked = [_pick(rows, columns, seed + k) for k, rows in enumerate(members)]
  images = read(np.concatenate(picked))
  of_class = np.split(images, np.cumsum([len(rows) for rows in picked])[:-1])
  tile_h, tile_w = _tile_shape(*images.shape[1:3])
  top = _below(title)
  counts = [counted(len(rows), "image") for rows in members]
  text_width = max(_width(name_font, class_names), _width(small_font, counts))
  left = 2 * _MARGIN + text_width
  width = left + columns * (tile_w + _GAP) - _GAP + _MARGIN
  height = top + len(class_names) * (tile_h + _GAP) - _GAP + _MARGIN
  sheet, draw = _blank(title, width, height)
  for k, chosen in enumerate(of_class):
    y = top + k * (tile_h + _GAP)
    middle = y + tile_h // 2
    draw.text((_MARGIN, middle), class_names[k], _INK, name_font, anchor="ls")
    draw.text((_MARGIN, middle + 6), counts[k], _GREY, small_font, anchor="lt")
    for column, image in enumerate(chosen):
      x = left + column * (tile_w + _GAP)
      sheet.paste(_tile(image), (x, y))
  return sheet


def group_sheet(
  groups: Sequence[Group], *, title: str = "", width: int = 1200
) -> Image.Image:
  """Draws groups of images beside and below each other, in order.

  Args:
    groups: of one image or more, gray or color, of any sizes; the images of a
      group are in a row, below its title and above their captions.
    title: a line above the groups; none if empty.
    width: pixels of the sheet, at most, unless one group needs more.
  """
  captions = [caption for _, pictures in groups for _, caption in pictures]
  title_font = _font(_NAME_SIZE, [name for name, _ in groups])
  small_font = _font(_SMALL_SIZE, captions)
  heights, group_width = [], 0
  # Image -> the pixels it takes across, its caption's with it.
  across: list[list[int]] = []
  for name, pictures in groups:
    shapes = [_tile_shape(*image.shape[:2]) for image, _ in pictures]
    texts = [caption.splitlines() for _, caption in pictures]
    across.append(
      [
        max(w, _width(small_font, lines)) + _MARGIN
        for (_, w), lines in zip(shapes, texts, strict=True)
      ]
    )
    lines = max(len(lines) for lines in texts)
    heights.append(
      _NAME_SIZE
      + 2 * _GAP
      + max(h for h, _ in shapes)
      + _GAP
      + lines * _LINE
      + _MARGIN
    )
    wide = max(sum(across[-1]), _width(title_font, [name]) + _MARGIN)
    group_width = max(group_width, wide)
  # Every group as wide as the widest, so that they stand in columns.
  columns = max(1, (width - _MARGIN) // max(group_width, 1))
  columns = min(columns, max(len(groups), 1))
  starts = range(0, len(groups), columns)
  line_heights = [max(heights[start : start + columns]) for start in starts]
  top = _below(title)
  sheet, draw = _blank(
    title, _MARGIN + columns * group_width, top + sum(line_heights)
  )
  for g, (name, pictures) in enumerate(groups):
    line, column = divmod(g, columns)
    x = _MARGIN + column * group_width
    y = top + sum(line_heights[:line])
    draw.text((x, y), name, _INK, title_font, anchor="lt")
    y += _NAME_SIZE + 2 * _GAP
    tallest = max(_tile_shape(*image.shape[:2])[0] for image, _ in pictures)
    for (image, caption), step in zip(pictures, across[g], strict=True):
      tile = _tile(image)
      sheet.paste(tile, (x, y + tallest - tile.height))
      for i, text in enumerate(caption.splitlines()):
        below = y + tallest + 2 * _GAP + i * _LINE
        draw.text((x, below), text, _GREY, small_font, anchor="lt")
      x += step
  return sheet


def save(sheet: Image.Image, output: Path) -> None:
  """Writes a sheet as a picture, and prints its path.

  Raises:
    UserError: it cannot be written, or would overwrite a file that the package
      did not make.
  """
  with write_output(output) as temporary:
    sheet.save(temporary)
  print(f"wrote {output}: {sheet.width} x {sheet.height} pixels")


def _font(
  size: int, texts: Iterable[str]
) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
  """Returns a font with the glyphs of some texts, if there is one."""
  texts = list(texts)
  font = None if "".join(texts).isascii() else fonts.find_font(texts)
  return font.at_size(size) if font else ImageFont.load_default(size)


def _width(
  font: ImageFont.ImageFont | ImageFont.FreeTypeFont, lines: Sequence[str]
) -> int:
  """Returns the pixels that the longest line takes."""
  return math.ceil(max((font.getlength(line) for line in lines), default=0))


def _below(title: str) -> int:
  """Returns where a sheet's images begin."""
  return _MARGIN + (2 * _TITLE_SIZE if title else 0)


def _blank(
  title: str, width: int, height: int
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
  """Makes a sheet with its title, wide enough for it."""
  font = _font(_TITLE_SIZE, [title])
  width = max(width, _width(font, [title]) + 2 * _MARGIN)
  sheet = Image.new("RGB", (width, height), "white")
  draw = ImageDraw.Draw(sheet)
  draw.text((_MARGIN, _MARGIN), title, _INK, font)
  return sheet, draw


def _pick(
  rows: Int[np.ndarray, " m"], columns: int, seed: int
) -> Int[np.ndarray, " columns"]:
  return np.random.default_rng(seed).permutation(rows)[:columns]


def _tile_shape(h: int, w: int) -> tuple[int, int]:
  """Returns height and width of an image on the sheet."""
  longest = max(h, w)
  if longest <= TILE:
    scale = TILE // longest
    return h * scale, w * scale
  return max(1, h * TILE // longest), max(1, w * TILE // longest)


def _tile(image: UInt8[np.ndarray, "h w c"]) -> Image.Image:
  height, width = _tile_shape(*image.shape[:2])
  picture = to_pillow(image)
  shrunk = height < image.shape[0] or width < image.shape[1]
  resample = Image.Resampling.LANCZOS if shrunk else Image.Resampling.NEAREST
  return picture.resize((width, height), resample)
