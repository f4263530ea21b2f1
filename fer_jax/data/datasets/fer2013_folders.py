"""Images of FER2013's release as folders: train/CLASS/Training_N.jpg."""

import io
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fer_jax.data.datasets import class_names
from fer_jax.data.datasets.fer2013_csv import SIDE, FaceRow
from fer_jax.errors import UserError

_NAME = re.compile(r"(Training|PublicTest|PrivateTest)_(\d+)\.\w+")
_SUFFIXES = (".jpg", ".jpeg", ".png")


def members(names: Iterable[str]) -> list[tuple[str, str, str]]:
  """Returns (file, class folder, path) of what lies in train/CLASS/FILE."""
  found = []
  for name in names:
    parts = PurePosixPath(name).parts
    if (
      len(parts) >= 3
      and parts[-3] in ("train", "test")
      and not any(p.startswith((".", "__MACOSX")) for p in parts)
      and PurePosixPath(name).suffix.lower() in _SUFFIXES
    ):
      found.append((parts[-1], parts[-2], name))
  return found


def read(
  release: str, names: list[str], read_bytes: Callable[[str], bytes]
) -> Iterator[FaceRow]:
  """Reads the images, by split and number.

  A file's name tells its official split: the folder `test` holds two of them.

  Args:
    release: name of the folder or archive, for messages.
    names: of all files in it; those that `members` does not list are let be.
    read_bytes: reads a file by its name.

  Raises:
    UserError: a file's name, class or content is wrong.
  """
  order = []
  for file, folder, name in members(names):
    match = _NAME.fullmatch(file)
    if not match:
      raise UserError(
        f"{release}/{name}: the name must be Training_N.jpg, PublicTest_N.jpg "
        "or PrivateTest_N.jpg, which tells the official split"
      )
    label = class_names.label_of_folder(folder)
    if label is None:
      raise UserError(
        f"{release}/{name}: no class is called {folder!r}: there are "
        f"{', '.join(class_names.FER2013_CLASSES)}"
      )
    order.append((match[1], int(match[2]), name, label))
  if not order:
    raise UserError(f"{release}: no images named train/CLASS/Training_N.jpg")
  for usage, number, name, label in sorted(order):
    image = _decode(f"{release}/{name}", read_bytes(name))
    yield FaceRow(class_names.FER2013_SPLITS[usage], image, label, number)


def _decode(name: str, content: bytes) -> UInt8[np.ndarray, "48 48 1"]:
  try:
    with Image.open(io.BytesIO(content)) as image:
      if image.size != (SIDE, SIDE):
        width, height = image.size
        raise UserError(
          f"{name}: {width}x{height} pixels instead of {SIDE}x{SIDE}"
        )
      return np.asarray(image.convert("L"), np.uint8)[..., None]
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
    raise UserError(f"{name}: not a readable image ({e})") from e
