"""RAF-DB: 15,339 color faces from the internet in seven classes.

Li, Deng and Du, "Reliable Crowdsourcing and Deep Locality-Preserving Learning
for Expression Recognition in the Wild", CVPR 2017
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from fer_jax.data import image_listing
from fer_jax.data.datasets import bounded_io, class_names
from fer_jax.data.datasets.folder_layout import (
  class_folder_images,
  split_folders,
)
from fer_jax.data.datasets.image_files import (
  FoundFiles,
  ImageFile,
  ImageFileBuilder,
)
from fer_jax.data.image_listing import Skipped, some
from fer_jax.errors import UserError
from fer_jax.text_output import printable

# Spelled so in the release.
_LISTS = ("list_patition_label.txt", "list_partition_label.txt")
_LIST_BYTES = 1 << 24
_CLASSES = class_names.RAFDB_CLASSES


class RafDb(ImageFileBuilder):
  """The basic expressions, in the official split of 12,271 and 3,068.

  There is no official validation split: `holdout_validation=0.1` takes one from
  train. Rows are numbered in the order of the list of labels.

  Options: see `ImageFileBuilder`; the aligned images are 100 x 100 in color.
  """

  VERSION = tfds.core.Version("1.0.0")
  name = "rafdb"
  classes = _CLASSES
  release_folders = (
    "rafdb",
    "RAF-DB",
    "RAF_DB",
    "rafdb/basic",
    "RAF-DB/basic",
    "basic",
  )
  default_options = {
    "image_size": 100,
    "color": True,
    "unreadable": "refuse",
  }

  def official_counts(self) -> Mapping[str, Sequence[int]]:
    """Returns the counts of the paper's Table 1."""
    return class_names.RAFDB_COUNTS

  def missing(self) -> UserError:
    """Returns the error that names what is looked for."""
    return UserError(
      "no release of RAF-DB found: unpack EmoLabel/list_patition_label.txt and"
      " Image/aligned of its basic set (http://www.whdeld.cn/raf/) in one"
      " folder, and set dataset.manual_dir to it"
    )

  def find_in(self, root: Path) -> FoundFiles | None:
    """Finds the official list and images, or the class folders train/1..7."""
    return _from_list(root) or _from_folders(root)


def _from_list(root: Path) -> FoundFiles | None:
  """Returns the official release, if `root` holds it."""
  for base in (root, root / "basic"):
    lists = [base / "EmoLabel" / name for name in _LISTS]
    lists += [base / name for name in _LISTS]
    label_file = next((path for path in lists if path.is_file()), None)
    if label_file:
      break
  else:
    return None
  images = next(
    (
      folder
      for folder in (base / "Image/aligned", base / "aligned")
      if folder.is_dir()
    ),
    None,
  )
  if images is None:
    raise UserError(
      f"{printable(base)}: the list of RAF-DB was found, but not its images:"
      " unpack Image/aligned.zip, so that there is a folder Image/aligned"
    )
  listing = image_listing.list_images(images)
  paths = {path.name: path for path in reversed(listing.images)}
  skipped = [*listing.skipped]
  skipped += [
    Skipped(path, "of the same name as another")
    for path in listing.images
    if paths[path.name] != path
  ]
  found: dict[str, list[ImageFile]] = {"train": [], "test": []}
  absent = []
  for row, (name, label) in enumerate(_read_list(label_file).items()):
    stem, dot, suffix = name.rpartition(".")
    path = paths.pop(f"{stem}_aligned{dot}{suffix}", None) or paths.pop(
      name, None
    )
    if path is None:
      absent.append(name)
    else:
      found[name.partition("_")[0]].append(ImageFile(path, label, row))
  if absent:
    raise UserError(
      f"{printable(images)}: {len(absent):,} images of"
      f" {printable(label_file.name)} are missing: {some(absent)}: unpack"
      " Image/aligned.zip again"
    )
  skipped += [
    Skipped(path, "not in the list of labels") for path in paths.values()
  ]
  return FoundFiles(base, found, skipped, [label_file])


def _read_list(path: Path) -> dict[str, int]:
  """Returns the class of each image by its name, in the list's order."""
  labels: dict[str, int] = {}
  lines = bounded_io.read_text(path, _LIST_BYTES).splitlines()
  for number, line in enumerate(lines, 1):
    fields = line.split()
    if not fields:
      continue
    split = fields[0].partition("_")[0]
    numbers = [str(i) for i in range(1, len(_CLASSES) + 1)]
    if (
      len(fields) != 2
      or split not in ("train", "test")
      or fields[1] not in numbers
    ):
      raise UserError(
        f"{printable(path)}, line {number}: {printable(line[:40])!r} must be"
        f" like 'train_00001.jpg 5', with a number from 1 to {len(_CLASSES)}"
      )
    if fields[0] in labels:
      raise UserError(
        f"{printable(path)}, line {number}: {printable(fields[0])} is listed"
        " twice: remove one of the lines"
      )
    labels[fields[0]] = int(fields[1]) - 1
  return labels


def _from_folders(root: Path) -> FoundFiles | None:
  """Returns a release as train/CLASS and test/CLASS, if `root` holds it."""
  for base in (root, root / "DATASET"):
    splits = split_folders(base) if base.is_dir() else {}
    if {"train", "test"} <= splits.keys():
      break
  else:
    return None

  def label_of(name: str) -> int | None:
    if name in [str(i) for i in range(1, len(_CLASSES) + 1)]:
      return int(name) - 1
    return class_names.label_of(name, _CLASSES)

  what = f"1 to 7 and {', '.join(_CLASSES)}"
  images, skipped = class_folder_images(splits, label_of, what)
  return FoundFiles(base, images, skipped)
