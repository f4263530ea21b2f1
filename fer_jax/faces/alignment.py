r"""Aligns faces: finds them in photos, rotates them upright, crops them.

python -m fer_jax.faces.alignment IMAGES_OR_FOLDERS... --output=DIR \
  [--size=48] [--color] [--margin=0] [--no_face=skip|refuse|center] \
  [--min_face=20] [--detect_size=0] [--sheet=before_after.png]

Folders keep their structure, so that ROOT/train/CLASS/*.jpg becomes a folder
dataset of aligned faces. Of several faces in an image the largest counts.
Needs the optional extra `faces`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from jaxtyping import UInt8
from PIL import Image

from fer_jax.data import image_reader, parallel
from fer_jax.data.image_inputs import list_inputs
from fer_jax.data.preparation_progress import progress, say
from fer_jax.errors import UserError, choose, run
from fer_jax.faces import crop, detection
from fer_jax.output_folder import OutputFolder, check_output, write_output
from fer_jax.text_output import printable

# The sheet: pixels of an image, images (before above after) per row, rows.
_TILE, _COLUMNS, _ROWS = 96, 12, 3

NO_FACE = ("skip", "refuse", "center")


@dataclasses.dataclass(frozen=True)
class AlignmentCounts:
  """What became of the images.

  Attributes:
    aligned: images whose face was written.
    no_face: images without a face.
    unreadable: images that cannot be read.
    sheet: some images before and after, if it was asked for.
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
  detector: detection.Detector,
  output: Path,
  *,
  size: int = 48,
  margin: float = 0.0,
  color: bool = False,
  no_face: str = "skip",
  with_sheet: bool = False,
) -> AlignmentCounts:
  """Aligns image files; those without a face, or damaged ones, are listed.

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
      made by this function; or an image has no face and `no_face` is "refuse".
  """
  choose("no_face", no_face, NO_FACE)
  folder = OutputFolder(output, inputs=images, kind="face")
  targets = folder.targets(images, ".png")

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
    with folder.write(targets[path].relative_to(output)) as temporary:
      (picture if color else picture.convert("L")).save(temporary, "PNG")
    shown = (_thumbnail(image), _thumbnail(face)) if with_sheet else None
    if found:
      return _Aligned("aligned", shown=shown)
    return _Aligned("no_face", "no face found", shown)

  counts = dict.fromkeys(("aligned", "no_face", "unreadable"), 0)
  every = max(1, -(-len(targets) // (_COLUMNS * _ROWS)))
  pairs = []
  results = parallel.map_in_order(align_one, images)
  for i, path in enumerate(progress(images, "aligning")):
    result = next(results)
    counts[result.outcome] += 1
    if result.outcome == "no_face" and no_face == "refuse":
      raise UserError(
        f"{printable(path)}: no face found; no_face=skip leaves such images"
        " out, no_face=center crops their middle"
      )
    if result.message:
      say(f"{printable(path)}: {result.message}")
    if result.shown and i % every == 0:
      pairs.append(result.shown)
  sheet = _before_after(pairs) if pairs else None
  return AlignmentCounts(**counts, sheet=sheet)


class _Aligned(NamedTuple):
  """What became of one image."""

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


def _define_flags() -> None:
  # Not as the file is imported: other commands have flags of these names.
  flags.DEFINE_string("output", "", "Folder to write the faces to, as PNGs.")
  flags.DEFINE_integer(
    "size", 48, "Height and width of the faces, in pixels.", lower_bound=8
  )
  flags.DEFINE_bool("color", False, "Write RGB instead of gray.")
  flags.DEFINE_float(
    "margin",
    0.0,
    "How much more to show at each side of a face, as a fraction of its size.",
    lower_bound=0.0,
    upper_bound=2.0,
  )
  flags.DEFINE_enum(
    "no_face",
    "skip",
    NO_FACE,
    "What to do with an image without a face: leave it out, stop, or crop the "
    "square in its middle.",
  )
  flags.DEFINE_float("min_face", 20, "Smallest face to find, in pixels.")
  flags.DEFINE_integer(
    "detect_size",
    0,
    "Longer side that larger photos are shrunk to for the search; 0: none.",
  )
  flags.DEFINE_string("sheet", "", "PNG of some images before and after.")


def main(argv: Sequence[str]) -> None:
  """Aligns the images that the command names."""
  given = flags.FLAGS
  if len(argv) < 2:
    raise UserError("name images, or folders of images, to align")
  if not given.output:
    raise UserError("--output=DIR is missing: a folder for the faces")
  output = Path(given.output).expanduser()
  sheet = Path(given.sheet).expanduser()
  if given.sheet and sheet.suffix.lower() != ".png":
    raise UserError(f"--sheet={sheet} must end in .png")
  inputs = list_inputs(
    [Path(name).expanduser() for name in argv[1:]], output=output
  )
  if given.sheet:
    check_output(sheet, inputs.images)
  if inputs.skipped:
    say(f"skipped {inputs.describe_skipped()}")
  counts = align_images(
    inputs.images,
    detection.create_detector(
      min_face=given.min_face, detect_size=given.detect_size
    ),
    output,
    size=given.size,
    margin=given.margin,
    color=given.color,
    no_face=given.no_face,
    with_sheet=bool(given.sheet),
  )
  if counts.sheet:
    with write_output(sheet, inputs=inputs.images) as temporary:
      counts.sheet.save(temporary, "PNG")
  print(counts)
  if counts.unreadable:
    raise UserError(
      f"{counts.unreadable:,} of {len(inputs.images):,} images could not be"
      " read"
    )


if __name__ == "__main__":
  _define_flags()
  run(main, takes_arguments=True)
