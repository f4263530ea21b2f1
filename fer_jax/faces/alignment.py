"""Aligns image files: finds faces, rotates them upright, crops them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fer_jax.console import progress, say
from fer_jax.data import image_reader, parallel
from fer_jax.data.image_listing import some
from fer_jax.errors import UserError, choose
from fer_jax.faces import crop
from fer_jax.faces.face import Detector
from fer_jax.output_folder import OutputFolder, made_files
from fer_jax.output_names import output_names
from fer_jax.text_output import printable

# The sheet: pixels of an image, images (before above after) per row, rows.
_TILE, _COLUMNS, _ROWS = 96, 12, 3

NO_FACE = ("skip", "refuse", "center")


@dataclasses.dataclass(frozen=True)
class AlignmentCounts:
  """Numbers of images, by outcome.

  Attributes:
    aligned: images whose face was written.
    no_face: images without a face.
    unreadable: images that cannot be read.
    sheet: some images before and after, if it was requested and there are any.
  """

  aligned: int
  no_face: int
  unreadable: int
  sheet: Image.Image | None = None

  def __str__(self) -> str:
    return (
      f"aligned {self.aligned:,}, no face {self.no_face:,}, "
      f"unreadable {self.unreadable:,}"
    )


def align_images(
  images: Mapping[Path, Path],
  detector: Detector,
  output: Path,
  *,
  size: int = 48,
  margin: float = 0.0,
  color: bool = False,
  no_face: str = "skip",
  with_sheet: bool = False,
) -> AlignmentCounts:
  """Aligns image files; those without a face, or damaged ones, are listed.

  Faces of earlier runs that were not written again are listed, too. They stay:
  they belong to images that were not given this time, or are outdated, since
  an image was moved, renamed or removed.

  Args:
    images: file -> the input it was found by, as in `ImageInputs.images`.
    detector: finds the faces.
    output: a folder for the faces, as PNGs; folder structure is kept.
    size: height and width of the faces, in pixels.
    margin: as for `crop.align`.
    color: RGB instead of gray.
    no_face: what to do with an image without a face: "skip" it, "refuse" to
      continue, or crop its "center".
    with_sheet: whether to draw some images before and after.

  Raises:
    UserError: a file cannot be written, or would overwrite one that was not
      made by this function, or was made of another image; or an image has no
      face and `no_face` is "refuse".
  """
  choose("no_face", no_face, NO_FACE)
  folder = OutputFolder(output, inputs=images, kind="face")
  names = output_names(images, ".png", keep_folders=True)
  targets = folder.paths_for(names)
  written: list[Path] = []

  def align_one(path: Path) -> _Aligned:
    try:
      image = image_reader.read(path, color=True)
    except image_reader.UnreadableError as e:
      return _Aligned("unreadable", f"not a readable image ({e})")
    found = detector.detect(image)
    if found:
      face = crop.align(image, found[0], size, margin)
    elif no_face == "center":
      face = image_reader.square(image, size)
    else:
      return _Aligned("no_face", "no face found")
    picture = Image.fromarray(face)
    with folder.write(names[path]) as temporary:
      (picture if color else picture.convert("L")).save(temporary, "PNG")
    written.append(targets[path])
    shown = (_thumbnail(image), _thumbnail(face)) if with_sheet else None
    if found:
      return _Aligned("aligned", shown=shown)
    return _Aligned("no_face", "no face found", shown)

  counts = dict.fromkeys(("aligned", "no_face", "unreadable"), 0)
  pairs, every, num_shown = [], 1, 0
  results = parallel.map_in_order(align_one, images)
  for path in progress(images, "aligning", unit="images"):
    result = next(results)
    counts[result.outcome] += 1
    if result.outcome == "no_face" and no_face == "refuse":
      raise UserError(
        f"{printable(path)}: no face found; no_face=skip leaves such images"
        " out, no_face=center crops their middle"
      )
    if result.message:
      say(f"{printable(path)}: {result.message}")
    if result.shown:
      if num_shown % every == 0:
        pairs.append(result.shown)
      num_shown += 1
    if len(pairs) > _COLUMNS * _ROWS:  # Keeps every second, evenly.
      del pairs[1::2]
      every *= 2
  earlier = sorted(made_files(output, "face") - set(written))
  if earlier:
    kept = [printable(path.relative_to(output)) for path in earlier]
    say(
      f"{printable(output)}: not written again, from earlier runs:"
      f" {some(kept)}; remove them unless their images were not given now"
    )
  if with_sheet and not pairs:
    say("no sheet is written: there is no face to show")
  sheet = _before_after(pairs) if pairs else None
  return AlignmentCounts(**counts, sheet=sheet)


class _Aligned(NamedTuple):
  """The outcome for one image."""

  outcome: str
  message: str = ""
  shown: tuple[Image.Image, Image.Image] | None = None


def _thumbnail(image: UInt8[np.ndarray, "h w 3"]) -> Image.Image:
  picture = Image.fromarray(image)
  scale = _TILE / max(picture.size)
  w, h = (max(1, round(side * scale)) for side in picture.size)
  return picture.resize((w, h), Image.Resampling.LANCZOS)


def _before_after(
  pairs: Sequence[tuple[Image.Image, Image.Image]],
) -> Image.Image:
  """Draws images, and below each the face that was cropped."""
  columns = min(len(pairs), _COLUMNS)
  across, down = _TILE + 4, 2 * _TILE + 12
  size = (columns * across, -(-len(pairs) // columns) * down)
  sheet = Image.new("RGB", size, "white")
  for i, (before, after) in enumerate(pairs):
    x, y = i % columns * across, i // columns * down
    sheet.paste(before, (x, y + _TILE - before.height))
    sheet.paste(after, (x, y + _TILE + 4))
  return sheet
