"""AffectNet: 290,000 color faces from the internet in eight classes.

Mollahosseini, Hasani and Mahoor, "AffectNet: A Database for Facial Expression,
Valence, and Arousal Computing in the Wild", IEEE Transactions on Affective
Computing, 2017, https://arxiv.org/abs/1708.03985
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from fer_jax import console
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
from fer_jax.data.image_listing import Skipped
from fer_jax.data.parallel import map_in_order
from fer_jax.errors import UserError, require
from fer_jax.text_output import printable

_SPLITS = {"train": "train_set", "validation": "val_set"}
_CLASSES = class_names.AFFECTNET_CLASSES
_LAST_NUMBER = 10  # of the annotations: none, uncertain and no face are 8 to 10
_UNLABELED = -1
# What NumPy raises on files that are none.
_NOT_ANNOTATIONS = (
  OSError,
  ValueError,
  EOFError,
  MemoryError,
  SyntaxError,
  OverflowError,  # infinity
  AttributeError,  # an archive of arrays
)


class AffectNet(ImageFileBuilder):
  """The manually annotated images: 287,651 to train, 3,999 to validate.

  The official test split is not published. Rows are numbered through train and
  validation in the order of the files' names.

  Options: see `ImageFileBuilder`; the images are 224 x 224 in color.
  `num_classes`, 8, or 7 without contempt.
  """

  VERSION = tfds.core.Version("1.0.0")
  name = "affectnet"
  classes = _CLASSES
  release_folders = ("affectnet", "AffectNet", "affectnet/Manually_Annotated")
  default_options = {
    "image_size": 224,
    "color": True,
    "unreadable": "refuse",
    "num_classes": 8,
  }

  def __init__(self, **kwargs: Any):
    num_classes = kwargs.get("num_classes", 8)
    must = "be 8, or 7 without contempt"
    require(num_classes in (7, 8), "dataset.num_classes", num_classes, must)
    super().__init__(**kwargs)

  @property
  def class_names(self) -> tuple[str, ...]:
    """Eight expressions, contempt the last, or seven."""
    return self.classes[: self.options["num_classes"]]

  def official_counts(self) -> Mapping[str, Sequence[int]]:
    """Returns the counts of the release's own description."""
    count = self.options["num_classes"]
    official = class_names.AFFECTNET_COUNTS.items()
    return {split: counts[:count] for split, counts in official}

  def missing(self) -> UserError:
    """Returns the error that names what is looked for."""
    return UserError(
      "no release of AffectNet found: unpack train_set and val_set, each with"
      " images and annotations (http://mohammadmahoor.com/affectnet/), or"
      " train/CLASS/IMAGE and val/CLASS/IMAGE, in one folder, and set"
      " dataset.manual_dir to it"
    )

  def find_in(self, root: Path) -> FoundFiles | None:
    """Finds images and annotations, or class folders."""
    return _with_annotations(root) or _from_folders(root)

  def labeled(self, found: FoundFiles) -> Mapping[str, Sequence[ImageFile]]:
    """Reads the annotations, and leaves out images of other classes."""
    images = {}
    for split, files in found.images.items():
      unlabeled = [file for file in files if file.label == _UNLABELED]
      labels = console.progress(
        map_in_order(
          _read_label,
          (_label_file(found.root / _SPLITS[split], f.path) for f in unlabeled),
        ),
        f"{self.name}: reading annotations of {split}",
        total=len(unlabeled),
      )
      by_row = {f.row: n for f, n in zip(unlabeled, labels, strict=True)}
      numbered = [f._replace(label=by_row.get(f.row, f.label)) for f in files]
      images[split] = [
        f for f in numbered if f.label < self.options["num_classes"]
      ]
    return images


def _with_annotations(root: Path) -> FoundFiles | None:
  """Returns the official release, if `root` holds it."""
  folders = {split: root / name for split, name in _SPLITS.items()}
  if not any((f / "annotations").is_dir() for f in folders.values()):
    return None
  for folder in folders.values():
    for name in ("images", "annotations"):
      if not (folder / name).is_dir():
        raise UserError(
          f"{printable(root)}: the layout of AffectNet was recognized"
          f" (train_set and val_set), but {folder.name}/{name} is missing:"
          " unpack it there"
        )
  images: dict[str, list[ImageFile]] = {}
  skipped: list[Skipped] = []
  label_files = []
  row = 0
  for split, folder in folders.items():
    listing = image_listing.list_images(folder / "images")
    skipped += listing.skipped
    annotations = {
      path.name
      for path in (folder / "annotations").iterdir()
      if path.name.endswith("_exp.npy")
    }
    images[split] = []
    for path in listing.images:
      label_file = _label_file(folder, path)
      if label_file.name in annotations:
        images[split].append(ImageFile(path, _UNLABELED, row))
        label_files.append(label_file)
      else:
        skipped.append(Skipped(path, "without annotation"))
      row += 1
    if not images[split]:
      raise UserError(
        f"{printable(folder)}: no images with annotations, named"
        " images/0.jpg and annotations/0_exp.npy"
      )
  return FoundFiles(root, images, skipped, label_files)


def _from_folders(root: Path) -> FoundFiles | None:
  """Returns a release as class folders, if `root` holds it."""
  splits = split_folders(root)
  if "train" not in splits:
    return None

  def label_of(name: str) -> int | None:
    if name in [str(i) for i in range(len(_CLASSES))]:
      return int(name)
    return class_names.label_of(name, _CLASSES)

  what = f"0 to 7 and {', '.join(_CLASSES)}"
  images, skipped = class_folder_images(splits, label_of, what)
  return FoundFiles(root, images, skipped)


def _label_file(split_folder: Path, image: Path) -> Path:
  return split_folder / "annotations" / f"{image.stem}_exp.npy"


def _read_label(path: Path) -> int:
  """Returns the number in an annotation, which is text or a number."""
  try:
    with bounded_io.open_regular(path) as f:
      content = f.read(bounded_io.MAX_TEXT)
    value = np.load(io.BytesIO(content), allow_pickle=False)
    number = int(value.item())
  except _NOT_ANNOTATIONS as e:
    reason = printable(str(e).splitlines()[0] if str(e) else type(e).__name__)
    raise UserError(f"{printable(path)}: not an annotation ({reason})") from e
  if not 0 <= number <= _LAST_NUMBER:
    raise UserError(
      f"{printable(path)}: expression {number} must be 0 to {_LAST_NUMBER}"
    )
  return number
