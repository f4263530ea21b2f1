r"""Aligns faces: finds them in photographs, turns them upright, crops them.

python -m fer_jax.faces.alignment IMAGES_OR_FOLDERS... --output=DIR \
  [--size=48] [--color] [--margin=0] [--no_face=skip|refuse|center] \
  [--sheet=before_after.png]

Folders keep their structure, so that ROOT/train/CLASS/*.jpg becomes a folder
data set of aligned faces. Of several faces in an image the largest counts.
Needs the optional extra `faces`.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from jaxtyping import UInt8
from PIL import Image

from fer_jax.data import image_reader
from fer_jax.data.preparation_progress import progress, say
from fer_jax.errors import UserError, run
from fer_jax.faces import detection

# The sheet: pixels of an image, images (before above after) a row, rows.
_TILE, _COLUMNS, _ROWS = 96, 12, 3


class Counts(NamedTuple):
  """What became of the images; `shown` is the sheet, if one was asked for."""

  aligned: int
  no_face: int
  unreadable: int
  shown: Image.Image | None = None

  def __str__(self) -> str:
    return (
      f"aligned {self.aligned:,}, no face {self.no_face:,}, "
      f"unreadable {self.unreadable:,}"
    )


def find_images(inputs: Sequence[Path], output: Path) -> dict[Path, Path]:
  """Returns which file each image's face goes to, in the images' order.

  Args:
    inputs: image files, whatever their suffix, and folders, of which all
      images count but hidden ones.
    output: a folder; it need not exist.

  Raises:
    UserError: there are no images, an input does not exist, two images would
      go to one file, or an image would be overwritten.
  """
  targets: dict[Path, Path] = {}
  sources: dict[Path, Path] = {}
  for given in inputs:
    for path, name in _named(given, output):
      target = (output / name).with_suffix(".png")
      other = sources.setdefault(target, path)
      if other != path:
        raise UserError(
          f"{other} and {path} would both become {target}: rename one, or "
          "align them into different folders"
        )
      targets[path] = target
  originals = {path.resolve() for path in targets}
  for path, target in targets.items():
    if target.resolve() in originals:
      raise UserError(
        f"{path} would overwrite the image {target}: give another --output"
      )
  return targets


def _named(given: Path, output: Path) -> list[tuple[Path, Path]]:
  """Returns the images that an input stands for, and their names."""
  if not given.is_dir():
    if not given.exists():
      raise UserError(f"no such image or folder: {given}")
    return [(given, Path(given.name))]
  if output.resolve().is_relative_to(given.resolve()):
    raise UserError(
      f"--output={output} lies in {given}, whose images are to be aligned: "
      "give a folder outside it"
    )
  found = []
  for path in sorted(given.rglob("*")):
    name = path.relative_to(given)
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
    image = path.suffix.lower() in image_reader.SUFFIXES and path.is_file()
    if image and not hidden:
      found.append((path, name))
  if not found:
    raise UserError(
      f"no images in {given}: their names must end in one of "
      f"{' '.join(sorted(image_reader.SUFFIXES))}"
    )
  return found


def align_images(
  targets: dict[Path, Path],
  detector: Callable[[UInt8[np.ndarray, "h w 3"]], list[detection.Face]],
  *,
  size: int = 48,
  margin: float = 0.0,
  color: bool = False,
  no_face: str = "skip",
  with_sheet: bool = False,
) -> Counts:
  """Aligns image files; those without a face, or damaged ones, are listed.

  Args:
    targets: image -> the PNG to write its face to.
    detector: a `detection.Detector`, or what finds faces as it does.
    size: height and width of what is written, in pixels.
    margin: as for `detection.align`.
    color: in colour instead of grey.
    no_face: what to do with an image without a face: "skip" it, "refuse" to
      go on, or take the square in its "center".
    with_sheet: whether to draw some images before and after.

  Raises:
    UserError: a file cannot be written, or an image has no face and `no_face`
      is "refuse".
  """
  num_aligned = num_without = num_unreadable = 0
  every = max(1, -(-len(targets) // (_COLUMNS * _ROWS)))
  pairs = []
  for i, (path, target) in enumerate(progress(targets.items(), "aligning")):
    try:
      image = image_reader.read(path, color=True)
    except image_reader.UnreadableError as e:
      say(f"{path}: not a readable image ({e})")
      num_unreadable += 1
      continue
    found = detector(image)
    if found:
      face = detection.align(image, found[0], size, margin)
      num_aligned += 1
    else:
      if no_face == "refuse":
        raise UserError(
          f"{path}: no face found; --no_face=skip leaves such images out, "
          "--no_face=center takes their middle"
        )
      say(f"{path}: no face found")
      num_without += 1
      if no_face == "skip":
        continue
      face = image_reader.read_square(path, size, color=True)
    picture = Image.fromarray(face)
    save(picture if color else picture.convert("L"), target)
    if with_sheet and i % every == 0:
      pairs.append((_thumbnail(image), _thumbnail(face)))
  sheet = _before_after(pairs) if pairs else None
  return Counts(num_aligned, num_without, num_unreadable, sheet)


def save(picture: Image.Image, target: Path) -> None:
  """Writes a PNG, in one piece or not at all.

  Raises:
    UserError: the disk does not take it.
  """
  part = target.with_name(f".{target.name}.part")
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
      picture.save(part, "PNG")
      os.replace(part, target)
    finally:
      part.unlink(missing_ok=True)
  except OSError as e:
    raise UserError(
      f"cannot write {target}: {e.strerror or e}; give another place"
    ) from e


def _thumbnail(image: UInt8[np.ndarray, "h w 3"]) -> Image.Image:
  picture = Image.fromarray(image)
  scale = _TILE / max(picture.size)
  w, h = (max(1, round(side * scale)) for side in picture.size)
  return picture.resize((w, h), Image.Resampling.LANCZOS)


def _before_after(
  pairs: Sequence[tuple[Image.Image, Image.Image]],
) -> Image.Image:
  """Draws images, and below each the face cut out of it."""
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
  flags.DEFINE_string("output", "", "The folder to write PNGs to.")
  flags.DEFINE_integer(
    "size", 48, "Height and width of the faces.", lower_bound=8
  )
  flags.DEFINE_bool("color", False, "Colour instead of grey.")
  flags.DEFINE_float(
    "margin",
    0.0,
    "How much more to show at each side of a face, as a part of its size.",
    lower_bound=0.0,
    upper_bound=2.0,
  )
  flags.DEFINE_enum(
    "no_face",
    "skip",
    ["skip", "refuse", "center"],
    "What to do with an image without a face: leave it out, stop, or take the "
    "square in its middle.",
  )
  flags.DEFINE_string("sheet", "", "A PNG of some images before and after.")


def main(argv: Sequence[str]) -> None:
  """Aligns the images that the command names."""
  given = flags.FLAGS
  if len(argv) < 2:
    raise UserError("name images, or folders of images, to align")
  if not given.output:
    raise UserError("--output=DIR is missing: where shall the faces go?")
  inputs = [Path(name).expanduser() for name in argv[1:]]
  targets = find_images(inputs, Path(given.output).expanduser())
  sheet = Path(given.sheet).expanduser()
  if given.sheet:
    if sheet.suffix.lower() != ".png":
      raise UserError(f"--sheet={sheet} must end in .png")
    if sheet.resolve() in {path.resolve() for path in targets}:
      raise UserError(f"--sheet={sheet} is one of the images to align")
  counts = align_images(
    targets,
    detection.Detector(),
    size=given.size,
    margin=given.margin,
    color=given.color,
    no_face=given.no_face,
    with_sheet=bool(given.sheet),
  )
  if counts.shown:
    save(counts.shown, sheet)
  print(counts)
  if counts.unreadable:
    raise UserError(
      f"{counts.unreadable:,} of {len(targets):,} images could not be read"
    )


if __name__ == "__main__":
  _define_flags()
  run(main, takes_arguments=True)
