"""Images of FER2013's release as folders: train/CLASS/Training_N.jpg."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import UInt8

from fer_jax.data import image_listing, image_reader
from fer_jax.data.datasets import class_names
from fer_jax.data.datasets.fer2013_csv import SIDE, FaceRow
from fer_jax.errors import UserError
from fer_jax.text_output import printable

_NAME = re.compile(r"(Training|PublicTest|PrivateTest)_(\d+)\.\w+")
_SUFFIXES = (".jpg", ".jpeg", ".png")
SPLIT_FOLDERS = ("train", "test", "training", "testing")


def members(names: Iterable[str]) -> list[tuple[str, str, str]]:
  """Returns (file, class folder, path) of what lies in train/CLASS/FILE."""
  found = []
  for name in names:
    parts = PurePosixPath(name).parts
    if (
      len(parts) >= 3
      and parts[-3].lower() in SPLIT_FOLDERS
      and not any(map(image_listing.is_hidden, parts))
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
    names: of all files in it; those that `members` does not list are ignored.
    read_bytes: reads a file by its name.

  Raises:
    UserError: a file's name, class or content is wrong.
  """
  order = []
  for file, folder, name in members(names):
    match = _NAME.fullmatch(file)
    label = class_names.label_of_folder(folder)
    shown = printable(f"{release}/{name}")
    if not match:
      raise UserError(
        f"{shown}: the folders are laid out as train/CLASS/IMAGE, but this is"
        " not FER2013's folder release: its names are Training_N.jpg,"
        " PublicTest_N.jpg and PrivateTest_N.jpg, which tell the official"
        f" split; use dataset.name=folder with dataset.manual_dir={release}"
      )
    if label is None:
      raise UserError(
        f"{shown}: no class is called {printable(folder)!r}: there are "
        f"{', '.join(class_names.FER2013_CLASSES)}; for other classes use"
        " dataset.name=folder"
      )
    order.append((match[1], int(match[2]), name, label))
  if not order:
    raise UserError(f"{release}: no images named train/CLASS/Training_N.jpg")
  for usage, number, name, label in sorted(order):
    image = _decode(f"{release}/{name}", read_bytes(name))
    yield FaceRow(class_names.FER2013_SPLITS[usage], image, label, number)


def _decode(name: str, content: bytes) -> UInt8[np.ndarray, "48 48 1"]:
  try:
    image = image_reader.read(content)
  except image_reader.UnreadableError as e:
    raise UserError(f"{printable(name)}: not a readable image ({e})") from e
  height, width, _ = image.shape
  if (height, width) != (SIDE, SIDE):
    raise UserError(
      f"{printable(name)}: {width}x{height} pixels instead of {SIDE}x{SIDE}"
    )
  return image
