"""Images of FER2013's release as folders: train/CLASS/Training_N.jpg."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import PurePosixPath

from absl import logging

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
  release: str,
  names: list[str],
  read_bytes: Callable[[str], bytes],
  others: Iterable[str] = (),
) -> Iterator[FaceRow]:
  """Reads the images, by split and number.

  A file's name tells its official split: the folder `test` holds two of them.
  A warning lists what is not read, without hidden files.

  Args:
    release: name of the folder or archive, for messages.
    names: of files in it; those that `members` does not list are not read.
    read_bytes: reads a file by its name.
    others: names of further files, which are not read.

  Raises:
    UserError: a file's name, class or content is wrong.
  """
  found: dict[tuple[str, int], tuple[str, int]] = {}
  taken = members(names)
  _warn_of_skipped(release, [*names, *others], {name for _, _, name in taken})
  # Of images that the release holds twice, the one with the shortest path.
  taken.sort(key=lambda member: (member[2].count("/"), member[2]))
  for file, folder, name in taken:
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
    first, other = found.setdefault((match[1], int(match[2])), (name, label))
    if label != other:
      raise UserError(
        f"{shown}: this image is in another class, too: {printable(first)};"
        " remove one of them"
      )
  if not found:
    raise UserError(f"{release}: no images named train/CLASS/Training_N.jpg")
  if copies := len(taken) - len(found):
    logging.warning(
      "%s: left out %d second copies of images", printable(release), copies
    )
  for (usage, number), (name, label) in sorted(found.items()):
    shown = f"{release}/{name}"
    image = image_reader.read_sized(read_bytes(name), SIDE, shown)
    yield FaceRow(class_names.FER2013_SPLITS[usage], image, label, number)


def _warn_of_skipped(
  release: str, names: Iterable[str], taken: Collection[str]
) -> None:
  skipped = [
    printable(name)
    for name in names
    if name not in taken
    and not name.endswith("/")  # a folder of an archive
    and not any(map(image_listing.is_hidden, PurePosixPath(name).parts))
  ]
  if skipped:
    logging.warning(
      "%s: skipped %d not named train/CLASS/IMAGE or test/CLASS/IMAGE, with"
      " %s (%s)",
      printable(release),
      len(skipped),
      ", ".join(_SUFFIXES),
      image_listing.some(sorted(skipped)),
    )
