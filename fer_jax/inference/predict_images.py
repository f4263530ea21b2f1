"""What `fer_jax.predict` does with many images: read, answer, draw."""

import dataclasses
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_jax.data import image_reader
from fer_jax.data.preparation_progress import progress, say
from fer_jax.errors import UserError
from fer_jax.inference.predictor import Crop, Prediction, Predictor

_BOX = (255, 196, 0)
_INK = (20, 20, 24)


@dataclasses.dataclass
class Counts:
  """What became of the images."""

  images: int = 0
  faces: int = 0
  without_face: int = 0
  unreadable: int = 0
  seconds: float = 0.0

  def __str__(self) -> str:
    rate = self.faces / self.seconds if self.seconds else 0
    return (
      f"{self.faces:,} faces in {self.images:,} images ({rate:,.1f} faces/s),"
      f" no face {self.without_face:,}, unreadable {self.unreadable:,}"
    )


def find_images(inputs: Sequence[Path]) -> list[Path]:
  """Returns files as they are named, and all images in folders, sorted.

  Raises:
    UserError: an input does not exist, or there are no images.
  """
  found: list[Path] = []
  for given in inputs:
    if given.is_dir():
      found += sorted(
        path
        for path in given.rglob("*")
        if path.suffix.lower() in image_reader.SUFFIXES
        and not any(
          part.startswith(".") for part in path.relative_to(given).parts
        )
      )
    elif given.exists():
      found.append(given)
    else:
      raise UserError(
        f"{given} does not exist: name images, or folders of them"
      )
  if not found:
    raise UserError(
      f"no images in {', '.join(map(str, inputs))}: looked for"
      f" {', '.join(sorted(image_reader.SUFFIXES))}"
    )
  return found


def answer(
  predictor: Predictor,
  paths: Sequence[Path],
  *,
  detect: bool = True,
  as_json: bool = False,
  annotate: Path | None = None,
) -> Counts:
  """Prints a line for each face, as soon as its batch is full.

  Args:
    predictor: classifies.
    paths: of the images.
    detect: whether to look for faces.
    as_json: JSON, one object a line, instead of a table.
    annotate: a folder for copies of the images with boxes and labels.

  Returns:
    What became of the images; unreadable ones are named on stderr.
  """
  counts, started = Counts(images=len(paths)), time.monotonic()
  drawn: dict[str, list[Prediction]] = defaultdict(list)
  if not as_json:
    print(head(f"{'image':40}"))
  for found in predictor.classify(_crops(predictor, paths, detect, counts)):
    counts.faces += 1
    if as_json:
      print(json.dumps(found.to_json()), flush=True)
    else:
      print(row(f"{found.source:40}", found))
    if annotate:
      drawn[found.source].append(found)
  counts.seconds = time.monotonic() - started
  if annotate:
    _annotate(drawn, annotate)
  return counts


def _crops(
  predictor: Predictor, paths: Iterable[Path], detect: bool, counts: Counts
) -> Iterator[Crop]:
  """Yields the faces of all images that can be read; counts the others."""
  for path in progress(paths, "looking at images"):
    try:
      crops = predictor.crops(path, detect)
    except image_reader.UnreadableError as e:
      counts.unreadable += 1
      say(f"skipped {path}: {e}")
      continue
    counts.without_face += not crops
    yield from crops


def head(where: str) -> str:
  """Returns the table's first line; `where` is what its rows begin with."""
  return _row(where, "box", "expression", "probability")


def row(where: str, found: Prediction) -> str:
  """Returns a face's line of the table."""
  box = " ".join(f"{n:.0f}" for n in found.box) if found.box else "whole"
  return _row(where, box, found.label, f"{found.probability:.1%}")


def _row(where: str, box: str, label: str, probability: str) -> str:
  return f"{where}  {box:>20}  {label:12}  {probability:>11}"


def _annotate(drawn: dict[str, list[Prediction]], folder: Path) -> None:
  """Writes a copy of every image that has a face, boxes and labels on it."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, int] = defaultdict(int)
    for source, predictions in drawn.items():
      stem = Path(source).stem
      names[stem] += 1
      again = f"_{names[stem]}" if names[stem] > 1 else ""
      picture = annotated(image_reader.read(source, color=True), predictions)
      picture.save(folder / f"{stem}{again}.png")
  except OSError as e:
    raise UserError(
      f"cannot write --annotate={folder}: {e.strerror or e}; give another"
      " folder"
    ) from e


def annotated(
  image: np.ndarray, predictions: Sequence[Prediction]
) -> Image.Image:
  """Draws boxes and labels on a picture.

  Args:
    image: uint8 `[h w 3]`.
    predictions: of its faces; one without a box is the whole picture.
  """
  picture = Image.fromarray(image)
  # Text is legible on small pictures too.
  scale = max(1, -(-320 // max(picture.size)))
  picture = picture.resize((picture.width * scale, picture.height * scale))
  draw = ImageDraw.Draw(picture)
  size = max(12, max(picture.size) // 45)
  font = ImageFont.load_default(size)
  width = max(2, size // 7)
  for found in predictions:
    x, y, w, h = found.box or (0, 0, *image.shape[1::-1])
    left, top, right, bottom = (scale * n for n in (x, y, x + w, y + h))
    draw.rectangle((left, top, right, bottom), outline=_BOX, width=width)
    text = f"{found.label} {found.probability:.0%}"
    text_width = draw.textlength(text, font)
    below = max(0, min(top - size - 6, picture.height - size - 6))
    left = max(0, min(left, picture.width - text_width - 8))
    draw.rectangle((left, below, left + text_width + 8, below + size + 6), _BOX)
    draw.text((left + 4, below + 2), text, _INK, font)
  return picture
