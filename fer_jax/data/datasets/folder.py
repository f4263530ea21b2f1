"""A dataset of your own: images in folders, one folder per class.

ROOT/train/CLASS/*, and the same in validation and test; or ROOT/CLASS/*, which
is all training: `dataset.holdout_validation=0.1` takes a validation split from
it. Folders below a class, such as one per person, belong to the class.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from fer_jax.data import image_listing
from fer_jax.data.datasets import folder_layout as layout
from fer_jax.data.datasets.image_files import (
  FoundFiles,
  ImageFile,
  ImageFileBuilder,
)
from fer_jax.data.image_listing import Skipped
from fer_jax.errors import UserError
from fer_jax.output_folder import made_files
from fer_jax.text_output import printable


class ImageFolder(ImageFileBuilder):
  """Folders of images of any kind and size.

  The classes are the folders' names in alphabetical order, the same numbers in
  all splits. Rows are numbered through train, validation and test, by class and
  file name: row `i` is `files()[i]`.
  """

  VERSION = tfds.core.Version("1.0.0")
  name = "folder"

  def __init__(self, **kwargs: Any):
    given = kwargs.get("manual_dir", "")
    if not given:
      data_dir = kwargs.get("data_dir", "")
      prepared = (
        f" (dataset.data_dir={data_dir} is the folder of prepared data)"
        if data_dir
        else ""
      )
      raise UserError(
        f"dataset folder needs dataset.manual_dir=ROOT, of {layout.LAYOUTS}"
        f"{prepared}"
      )
    self._root = Path(given).expanduser()
    try:
      self._folders, self._others = layout.class_folders(self._root)
    except OSError as e:
      raise UserError(f"cannot read {printable(self._root)}: {e}") from e
    super().__init__(**kwargs)

  @property
  def class_names(self) -> tuple[str, ...]:
    """The names of the training split's folders, sorted."""
    return tuple(self._folders["train"])

  def files(self) -> list[Path]:
    """Returns the image of every row number."""
    found = self.found()
    assert found is not None  # The root exists, or __init__ raises.
    return [
      file.path
      for split in layout.SPLITS
      for file in found.images.get(split, ())
    ]

  def file_names(self) -> list[str]:
    """Returns the image of every row number, relative to the root."""
    root = os.path.join(self._root, "")
    return [str(path).removeprefix(root) for path in self.files()]

  def find_in(self, root: Path) -> FoundFiles:
    """Lists the images of each split and class.

    Raises:
      UserError: a class has no images to train on.
    """
    images: dict[str, list[ImageFile]] = {}
    skipped = [
      Skipped(
        path,
        image_listing.MADE
        if path.is_dir() and image_listing.holds_only_made(path)
        else "not in a class folder",
      )
      for path in self._others
    ]
    row = 0
    for split, folders in self._folders.items():
      images[split] = []
      for label, name in enumerate(self.class_names):
        if name not in folders:
          continue
        listing = image_listing.list_images(folders[name])
        skipped += listing.skipped
        if not listing.images and split == "train":
          raise layout.empty_class(folders[name], name, listing)
        for path in listing.images:
          images[split].append(ImageFile(path, label, row))
          row += 1
    return FoundFiles(root, images, skipped)

  def check_data_dir(self) -> None:
    """Refuses a `data_dir` among the class folders, where it would be a class.

    Raises:
      UserError: it lies there.
    """
    super().check_data_dir()
    data = Path(self.data_dir).resolve()
    folders = [f for split in self._folders.values() for f in split.values()]
    for root in {folder.parent.resolve() for folder in folders}:
      if data.is_relative_to(root) and not any(
        map(image_listing.is_hidden, data.relative_to(root).parts)
      ):
        raise UserError(
          f"dataset.data_dir={printable(self.data_root or data)} lies among the"
          f" class folders of dataset.manual_dir={printable(self._root)}: give"
          " a folder outside of it"
        )

  def extra_metadata(self) -> dict[str, Any]:
    """Refuses a class of which no training image can be read."""
    metadata = super().extra_metadata()
    files = self.found().images["train"]  # type: ignore[union-attr]
    unreadable = self._examples["train"].unreadable
    readable = {f.label for i, f in enumerate(files) if i not in unreadable}
    for label, name in enumerate(self.class_names):
      if label not in readable:
        raise UserError(
          f"{printable(self._root)}: no image of class {name!r} in train can"
          f" be read: {self._complaint()}"
        )
    return metadata

  def after_preparation(self) -> None:
    """Warns of what was left out or reduced, and of classes without images."""
    super().after_preparation()
    found = self.found()
    assert found is not None
    empty = [
      f"{split}/{name}"
      for split in self._folders
      for label, name in enumerate(self.class_names)
      if all(file.label != label for file in found.images[split])
    ]
    if empty:
      logging.warning(
        "%s: no images in %s: the split's scores do not include these classes",
        printable(self._root),
        image_listing.some(empty),
      )
    self._warn_of_reduction(found.images["train"][0].path)

  def _warn_of_reduction(self, path: Path) -> None:
    """Warns if faces that `align` made are shrunk, or lose their color."""
    if path not in made_files(self._root, "face"):
      return
    with Image.open(path, formats=["PNG"]) as image:
      side, color = image.width, image.mode != "L"
    size, in_color = self.options["image_size"], self.options["color"]
    keep = [f"dataset.image_size={side}"] if side > size else []
    keep += ["dataset.color=True"] if color and not in_color else []
    if keep:
      logging.warning(
        "%s: its faces are %d x %d pixels, %s, but are read as %d x %d, %s: set"
        " %s to keep them",
        printable(self._root),
        *(side, side, "color" if color else "gray"),
        *(size, size, "color" if in_color else "gray"),
        " and ".join(keep),
      )

  def _options_config(self) -> tfds.core.BuilderConfig:
    """Returns a config named after the root and the options."""
    options = super()._options_config()
    path = self._root.resolve()
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:10]
    name = re.sub(r"[^A-Za-z0-9._-]", "_", path.name)[:40]
    name = f"{name}-{digest}" + (f",{options.name}" if options else "")
    return tfds.core.BuilderConfig(name=name, version=self.VERSION)
