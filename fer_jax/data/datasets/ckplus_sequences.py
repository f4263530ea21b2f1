"""The official tree of CK+: sequences of frames, from neutral to the peak.

cohn-kanade-images/S005/001/S005_001_00000011.png, an Emotion file of one number
beside it for each labeled sequence, and Landmarks of 68 points per frame. Faces
are cropped from the frames by the landmarks, or else by a detector.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from fer_jax.data import image_reader
from fer_jax.data.datasets import bounded_io, class_names
from fer_jax.data.datasets import folder_layout as layout
from fer_jax.errors import UserError

SIDE = 48  # pixels, of every face
# The folders that hold S005, S010, ..., as the zips' contents name them.
_IMAGES = (
  "cohn-kanade-images",
  "extended-cohn-kanade-images/cohn-kanade-images",
  "extended-cohn-kanade-images",
)
_EMOTIONS = ("Emotion", "Emotion_labels/Emotion", "Emotion_labels")
_LANDMARKS = ("Landmarks", "Landmarks/Landmarks")
_FRAME = re.compile(r"S\d+_\d+_(\d+)\.png")
_NEUTRAL = class_names.CKPLUS_CLASSES.index("neutral")


class Frame(NamedTuple):
  """A face before it is read.

  Attributes:
    name: of the image, below the release's folder or in its archive.
    subject: "S005".
    sequence: of the subject, "001".
    number: of the frame.
    label: index in `class_names.CKPLUS_CLASSES`.
    landmarks: the name of their file, if there is one.
    label_file: the name of the Emotion file, in the tree.
  """

  name: str
  subject: str
  sequence: str
  number: int
  label: int
  landmarks: str = ""
  label_file: str = ""


class Face(NamedTuple):
  """One face of a release; the table has splits, the others subjects."""

  image: UInt8[np.ndarray, "48 48 1"]
  label: int
  row: int
  subject: str = ""
  split: str = ""


def images_folder(root: Path) -> Path | None:
  """Returns the folder of frames in the official tree, if there is one."""
  return _folder(root, _IMAGES)


def _folder(root: Path, names: tuple[str, ...]) -> Path | None:
  """Returns the first of the folders that has a subject's in it."""
  for folder in (root / name for name in names):
    if folder.is_dir() and any(path.is_dir() for path in folder.glob("S*")):
      return folder
  return None


def frames(root: Path, last_frames: int, neutral: bool) -> list[Frame]:
  """Lists the frames to read; see `ckplus_releases.frames`."""
  images, emotions = images_folder(root), _folder(root, _EMOTIONS)
  if images is None or emotions is None:
    raise UserError(
      f"{root}: there is cohn-kanade-images but no folder Emotion, which has "
      "the labels: unpack Emotion_labels.zip there"
    )
  landmarks = _folder(root, _LANDMARKS)
  found = []
  for file in sorted(emotions.glob("S*/*/S*_emotion.txt")):
    code = _emotion(file)
    if not code:
      continue  # Neutral to the end: no expression to learn.
    sequence = file.parent.relative_to(emotions)
    folder = images / sequence
    names = layout.visible(folder) if folder.is_dir() else []
    shots = [path for path in names if _FRAME.fullmatch(path.name)]
    if len(shots) < last_frames + neutral:
      first = " and the first" if neutral else ""
      raise UserError(
        f"{folder}: {len(shots)} frames, but the last {last_frames}"
        f"{first} are to be taken: unpack the images again, or lower "
        "dataset.last_frames"
      )
    picked = [(path, code - 1) for path in shots[-last_frames:]]
    if neutral:
      picked.insert(0, (shots[0], _NEUTRAL))
    for path, label in picked:
      points = (landmarks or root) / sequence / f"{path.stem}_landmarks.txt"
      number = path.stem.rpartition("_")[2]
      found.append(
        Frame(
          name=path.relative_to(root).as_posix(),
          subject=sequence.parts[0],
          sequence=sequence.parts[1],
          number=int(number),
          label=label,
          landmarks=str(points.relative_to(root)) if points.is_file() else "",
          label_file=str(file.relative_to(root)),
        )
      )
  if not found:
    raise UserError(
      f"{emotions}: no label files named S005/001/S005_001_00000011_emotion.txt"
    )
  return found


def _emotion(file: Path) -> int:
  """Returns the number in an Emotion file, 0 to 7."""
  try:
    text = bounded_io.read_text(file).strip()
  except OSError as e:
    raise UserError(f"{file}: {e}") from e
  try:
    value = float(text)
  except ValueError:
    value = -1
  if value not in range(len(class_names.CKPLUS_CLASSES)):
    raise UserError(f"{file}: {text[:20]!r} must be a number from 0 to 7")
  return int(value)


def read(root: Path, found: list[Frame]) -> Iterator[Face]:
  """Crops the faces from their frames, in order.

  Raises:
    UserError: a file is wrong, no face is found in a frame without
      landmarks, or there is no detector installed for these.
  """
  detector: Any = None
  for row, frame in enumerate(found):
    # Takes a while to import, and only the tree needs it.
    from fer_jax.faces import crop, detection

    try:
      image = image_reader.read(root / frame.name)
    except image_reader.UnreadableError as e:
      raise UserError(f"{root / frame.name}: not a readable image ({e})") from e
    if frame.landmarks:
      points = read_landmarks(root / frame.landmarks)
      face = crop.align_from_landmarks(image, points, SIDE)
    else:
      detector = detector or detection.create_detector()
      detected = detector.detect(image)
      if not detected:
        raise UserError(
          f"{root / frame.name}: no face found; unpack Landmarks.zip beside "
          "the images, which says where they are"
        )
      face = crop.align(image, detected[0], SIDE)
    yield Face(face, frame.label, row, frame.subject)


def read_landmarks(file: Path) -> Float[np.ndarray, "68 2"]:
  """Reads the points of one frame, x and y in pixels.

  Raises:
    UserError: the file does not hold 68 pairs of finite numbers.
  """
  try:
    text = bounded_io.read_text(file).split()
    points = np.array(text, np.float64)
  except (OSError, ValueError) as e:
    raise UserError(f"{file}: {e}") from e
  if points.size != 2 * 68 or not np.isfinite(points).all():
    raise UserError(
      f"{file}: {points.size} numbers instead of 68 finite pairs of x and y"
    )
  return points.reshape(68, 2)
