"""JAFFE: 213 gray images of seven expressions posed by ten women.

Lyons, Akamatsu, Kamachi and Gyoba, "Coding Facial Expressions with Gabor
Wavelets", FG 1998
"""

import re
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from fer_jax.data import image_listing
from fer_jax.data.datasets import class_names
from fer_jax.data.datasets.image_files import (
  FoundFiles,
  ImageFile,
  ImageFileBuilder,
)
from fer_jax.data.datasets.subject_folds import (
  FOLD_OPTIONS,
  check_fold_options,
  split_of_subjects,
)
from fer_jax.data.image_listing import Skipped
from fer_jax.errors import UserError

# Subject, expression, number of the pose, number of the image.
_FILE = re.compile(r"([A-Z]{2})\.([A-Z]{2})\d?\.(\d+)\.\w+", re.IGNORECASE)
_CLASSES = class_names.JAFFE_CLASSES


class Jaffe(ImageFileBuilder):
  """All images, split by subject.

  The subjects are assigned to `num_folds` folds, as `ckplus` does: fold `fold`
  is the test split, the next one validation, the others train; with the
  default of 10, each fold is one person. Rows are numbered by the images' own
  numbers, from 0.

  Options: see `ImageFileBuilder`; the originals have 256 x 256 pixels. `fold`,
  0 to `num_folds - 1`; `num_folds`; `fold_seed`, which draws the folds.
  """

  VERSION = tfds.core.Version("1.0.0")
  name = "jaffe"
  classes = _CLASSES
  release_folders = ("jaffe", "JAFFE", "jaffedbase")
  default_options = {
    "image_size": 128,
    "color": False,
    "unreadable": "refuse",
    **FOLD_OPTIONS,
  }

  def __init__(self, **kwargs: Any):
    check_fold_options({**self.default_options, **kwargs})
    super().__init__(**kwargs)

  def missing(self) -> UserError:
    """Returns the error that names what is looked for."""
    return UserError(
      "no release of JAFFE found: unpack its images, named like"
      " KA.AN1.39.tiff (https://zenodo.org/records/3451524), in one folder,"
      " and set dataset.manual_dir to it"
    )

  def find_in(self, root: Path) -> FoundFiles | None:
    """Finds the images by their names, in any folders."""
    listing = image_listing.list_images(root)
    skipped = [*listing.skipped]
    named: dict[int, tuple[Path, str, int]] = {}
    for path in listing.images:
      match = _FILE.fullmatch(path.name)
      label = class_names.label_of(match[2], _CLASSES) if match else None
      if match is None or label is None:
        skipped.append(Skipped(path, "not named like KA.AN1.39.tiff"))
      elif int(match[3]) in named:
        skipped.append(Skipped(path, "another copy of an image"))
      else:
        named[int(match[3])] = (path, match[1].upper(), label)
    if not named:
      return None
    ordered = [(number, *named[number]) for number in sorted(named)]
    subjects = [subject for _, _, subject, _ in ordered]
    labels = [label for *_, label in ordered]
    split_of = split_of_subjects(subjects, labels, self.options)
    images: dict[str, list[ImageFile]] = {
      split: [] for split in ("train", "validation", "test")
    }
    for row, (_, path, subject, label) in enumerate(ordered):
      images[split_of[subject]].append(ImageFile(path, label, row))
    return FoundFiles(root, images, skipped)

  def other_counts(self) -> list[str]:
    """Describes the classes that have other counts than the official ones."""
    counts = [0] * len(_CLASSES)
    for examples in self._examples.values():
      for position, file in enumerate(examples.files):
        counts[file.label] += position not in examples.unreadable
    pairs = zip(_CLASSES, counts, class_names.JAFFE_COUNTS, strict=True)
    return [
      f"{name} {count:,} (official: {expected:,})"
      for name, count, expected in pairs
      if count != expected
    ]
