r"""Draws a contact sheet: a row of random images of each class.

python -m fer_jax.data.contact_sheet --dataset=synthetic_faces \
  [--split=train] [--columns=12] [--output=contact_sheet.png]
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from jaxtyping import Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from fer_jax import errors
from fer_jax.data import registry

_DATASET = flags.DEFINE_string(
  "dataset", "fer2013", "A data set, as fer_jax.data lists them."
)
_SPLIT = flags.DEFINE_string("split", "train", "train, validation or test.")
_DATA_DIR = flags.DEFINE_string(
  "data_dir", "", "Where the release's files lie, if not in the usual folder."
)
_PREPARED_DIR = flags.DEFINE_string(
  "prepared_dir", "", "Where prepared data go, if not to the usual folder."
)
_COLUMNS = flags.DEFINE_integer(
  "columns", 12, "Images of each class.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Picks the images.", lower_bound=0)
_OUTPUT = flags.DEFINE_string(
  "output", "contact_sheet.png", "The picture's file; its end tells the format."
)

# Pixels of the sheet. An image is scaled by a whole number, so that its pixels
# stay sharp squares, to at most TILE, or shrunk to it.
TILE = 96
_GAP = 4
_MARGIN = 16
_TITLE_SIZE = 20
_NAME_SIZE = 17
_COUNT_SIZE = 14
_INK = (28, 28, 32)
_GREY = (110, 110, 118)


def contact_sheet(
  images: UInt8[np.ndarray, "n h w c"],
  targets: np.ndarray,
  class_names: Sequence[str],
  *,
  columns: int = 12,
  seed: int = 0,
  title: str = "",
) -> Image.Image:
  """Draws a row of images per class, with its name and count at the left.

  Args:
    images: grey (c = 1) or colour (c = 3).
    targets: class numbers `[n]`, or weights of the classes `[n k]`, of which
      the highest counts.
    class_names: one a row, in this order; a class without images has an empty
      row.
    columns: images a row, at most.
    seed: picks the images; those of one class do not depend on the others'.
    title: a line above the rows; none if empty.
  """
  labels = targets if targets.ndim == 1 else targets.argmax(axis=1)
  fonts = [
    ImageFont.load_default(size)
    for size in (_TITLE_SIZE, _NAME_SIZE, _COUNT_SIZE)
  ]
  title_font, name_font, count_font = fonts
  tile_h, tile_w = _tile_shape(*images.shape[1:3])
  top = _MARGIN + (2 * _TITLE_SIZE if title else 0)
  members = [np.flatnonzero(labels == k) for k in range(len(class_names))]
  counts = [_count(len(rows)) for rows in members]
  text_width = max(
    *(name_font.getlength(name) for name in class_names),
    *(count_font.getlength(count) for count in counts),
  )
  left = 2 * _MARGIN + int(text_width)
  width = left + columns * (tile_w + _GAP) - _GAP + _MARGIN
  title_width = int(title_font.getlength(title)) + 2 * _MARGIN
  height = top + len(class_names) * (tile_h + _GAP) - _GAP + _MARGIN
  sheet = Image.new("RGB", (max(width, title_width), height), "white")
  draw = ImageDraw.Draw(sheet)
  draw.text((_MARGIN, _MARGIN), title, _INK, title_font)
  for k, rows in enumerate(members):
    y = top + k * (tile_h + _GAP)
    middle = y + tile_h // 2
    draw.text((_MARGIN, middle), class_names[k], _INK, name_font, anchor="ls")
    draw.text((_MARGIN, middle + 6), counts[k], _GREY, count_font, anchor="lt")
    for column, row in enumerate(_pick(rows, columns, seed + k)):
      x = left + column * (tile_w + _GAP)
      sheet.paste(_tile(images[row], tile_w, tile_h), (x, y))
  return sheet


def _pick(
  rows: Int[np.ndarray, "m"], columns: int, seed: int
) -> Int[np.ndarray, "columns"]:
  return np.random.default_rng(seed).permutation(rows)[:columns]


def _count(number: int) -> str:
  return f"{number:,} image" + ("" if number == 1 else "s")


def _tile_shape(h: int, w: int) -> tuple[int, int]:
  """Returns height and width of an image on the sheet."""
  longest = max(h, w)
  if longest <= TILE:
    scale = TILE // longest
    return h * scale, w * scale
  return max(1, h * TILE // longest), max(1, w * TILE // longest)


def _tile(
  image: UInt8[np.ndarray, "h w c"], width: int, height: int
) -> Image.Image:
  picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
  shrunk = height < image.shape[0]
  resample = Image.Resampling.LANCZOS if shrunk else Image.Resampling.NEAREST
  return picture.resize((width, height), resample)


def main(argv: Sequence[str]) -> None:
  """Writes the sheet that the flags ask for."""
  del argv
  output = Path(_OUTPUT.value).expanduser()
  if output.suffix.lower() not in Image.registered_extensions():
    raise errors.UserError(
      f"--output={output}: give a picture's name, such as contact_sheet.png"
    )
  dataset = registry.load(
    _DATASET.value, data_dir=_DATA_DIR.value, prepared_dir=_PREPARED_DIR.value
  )
  arrays = dataset.split(_SPLIT.value).arrays()
  images = arrays["image"]
  _, h, w, _ = images.shape
  sheet = contact_sheet(
    images,
    arrays["target"],
    dataset.class_names,
    columns=_COLUMNS.value,
    seed=_SEED.value,
    title=f"{dataset.name}, {_SPLIT.value}: {_count(len(images))} "
    f"of {w} x {h} pixels",
  )
  try:
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(output)
  except OSError as e:
    raise errors.UserError(
      f"cannot write --output={output}: {e.strerror or e}; give another place"
    ) from e
  print(f"wrote {output}: {sheet.width} x {sheet.height} pixels")


if __name__ == "__main__":
  errors.run(main)
