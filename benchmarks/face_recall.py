r"""Measures how many small faces are found in photos of several sizes.

python benchmarks/face_recall.py PHOTO [--csv=face_recall.csv] \
  [--faces=24,40,60,80] [--photos=1000x750,1920x1080,4000x3000] [--count=30] \
  [--detector=mtcnn] [--min_face=24] [--detect_size=0]

PHOTO shows one face. It is cut out with its surroundings, resized so that the
face has each height, and pasted into generated photos of each size. A face is
found if a detected box overlaps its own by 40 %; any other box is a false one.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from jaxtyping import UInt8
from PIL import Image

from fer_jax.cli import app, detector_flags
from fer_jax.data import image_reader
from fer_jax.errors import UserError

_OVERLAP = 0.4
_MARGIN = 0.6  # around the face, as a fraction of its height

Box = tuple[float, float, float, float]


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("faces", "24,40,60,80", "Heights of the faces, in pixels.")
  flags.DEFINE_list(
    "photos", "1000x750,1920x1080,4000x3000", "Widths and heights of photos."
  )
  flags.DEFINE_integer("count", 30, "Faces per photo.", lower_bound=1)
  detector_flags.define()
  flags.DEFINE_string("csv", "", "A CSV file for the figures.")


def main(argv: Sequence[str]) -> None:
  """Measures as the flags say."""
  given = flags.FLAGS
  if len(argv) != 2:
    raise UserError("name one photo with one face")
  detector = detector_flags.create()
  portrait = image_reader.read(Path(argv[1]).expanduser(), color=True)
  found = detector.detect(portrait)
  if len(found) != 1:
    raise UserError(f"{argv[1]} shows {len(found)} faces, not one")
  rows = ["detector,photo,face,faces,found,false,cpu_seconds,seconds"]
  for size in given.photos:
    width, height = (int(side) for side in size.split("x"))
    for face in map(int, given.faces):
      photo, boxes = _composite(
        portrait, found[0].box, face, (width, height), given.count
      )
      cpu, wall = time.process_time(), time.monotonic()
      detected = [one.box for one in detector.detect(photo)]
      cpu, wall = time.process_time() - cpu, time.monotonic() - wall
      hits = sum(_is_found(box, detected) for box in boxes)
      wrong = sum(not _is_found(box, boxes) for box in detected)
      rows.append(
        f"{given.detector},{size},{face},{len(boxes)},{hits},{wrong},{cpu:.2f},"
        f"{wall:.2f}"
      )
      print(
        f"{size:>10}  faces of {face:3} pixels: {hits} of {len(boxes)} found,"
        f" {wrong} false, {cpu:.2f} s CPU, {wall:.2f} s"
      )
  if given.csv:
    Path(given.csv).write_text("\n".join(rows) + "\n")


def _composite(
  portrait: UInt8[np.ndarray, "h w 3"],
  box: Box,
  face: int,
  size: tuple[int, int],
  count: int,
) -> tuple[UInt8[np.ndarray, "h w 3"], list[Box]]:
  """Returns a generated photo with faces in a grid, and their boxes."""
  x, y, w, h = box
  left, top = max(0, int(x - _MARGIN * h)), max(0, int(y - _MARGIN * h))
  right, bottom = int(x + w + _MARGIN * h), int(y + h + _MARGIN * h)
  part = Image.fromarray(portrait[top:bottom, left:right])
  scale = face / h
  part = part.resize(
    (max(1, round(part.width * scale)), max(1, round(part.height * scale))),
    Image.Resampling.LANCZOS,
  )
  rng, (width, height) = np.random.default_rng(0), size
  wall = rng.integers(40, 216, (height // 40, width // 40, 3), np.uint8)
  photo = Image.fromarray(wall).resize(size, Image.Resampling.BICUBIC)
  columns = max(1, round((count * width / height) ** 0.5))
  across, down = width / columns, height / -(-count // columns)
  boxes = []
  for i in range(count):
    at_x = int(i % columns * across + rng.uniform(0.1, 0.3) * across)
    at_y = int(i // columns * down + rng.uniform(0.1, 0.3) * down)
    at_x, at_y = min(at_x, width - part.width), min(at_y, height - part.height)
    photo.paste(part, (at_x, at_y))
    offset = at_x + (x - left) * scale, at_y + (y - top) * scale
    boxes.append((*offset, w * scale, h * scale))
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
