"""Images in folders, one a class: a data set of your own.

ROOT/train/CLASS/*, and test and validation likewise; or ROOT/CLASS/*, which is
all training: `--config.dataset.holdout_validation=0.1` cuts a validation split
from it.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from fer_jax.data import image_reader
from fer_jax.data.datasets import folder_layout as layout
from fer_jax.data.datasets.builder import FaceBuilder, Row
from fer_jax.errors import UserError, choose, require


class ImageFile(NamedTuple):
  """An image before it is read."""

  split: str
  path: Path
  label: int


class ImageFolder(FaceBuilder):
  """Folders of images of any kind and size, made grey squares once.

  The classes are the folders' names in alphabetical order, the same numbers in
  all splits. `image_reader.read_square` says how an image is read. Rows are
  numbered through train, validation and test, by class and file name: row `i`
  is `files()[i]`.

  Options: `image_size`, height and width to resize to, in pixels; `color`,
  three channels instead of one; `unreadable`, whether files that cannot be
  read are an error ("refuse") or left out ("skip").
  """

  VERSION = tfds.core.Version("1.0.0")
  name = "folder"
  default_options = {"image_size": 48, "color": False, "unreadable": "refuse"}

  def __init__(self, **kwargs: Any):
    options = {**self.default_options, **kwargs}
    size = options["image_size"]
    ok = isinstance(size, int) and 8 <= size <= 1024
    must = "be a whole number of pixels, 8 to 1024"
    require(ok, "dataset.image_size", size, must)
    ok = isinstance(options["color"], bool)
    require(ok, "dataset.color", options["color"], "be true or false")
    must = "value of --config.dataset.unreadable"
    choose(must, options["unreadable"], ("refuse", "skip"))
    given = options.get("manual_dir", "")
    if not given:
      data_dir = options.get("data_dir", "")
      prepared = (
        f" (dataset.data_dir={data_dir} is where prepared data go)"
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
      raise UserError(f"cannot look into {self._root}: {e}") from e
    super().__init__(**kwargs)

  @property
  def class_names(self) -> tuple[str, ...]:
    """The names of the training split's folders, sorted."""
    return tuple(self._folders["train"])

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """Height, width and channels, as the options have it."""
    size = self.options["image_size"]
    return size, size, 3 if self.options["color"] else 1

  def files(self) -> list[Path]:
    """Returns the image of every row number."""
    return [file.path for file in self._images()]

  def source(self) -> dict[str, Any]:
    """Says which files are in the folders now."""
    try:
      return layout.fingerprint(self._root, self.files())
    except OSError as e:
      raise UserError(f"cannot look into {self._root}: {e}") from e

  def origin(self) -> str:
    """Says which folder is taken."""
    return str(self._root)

  def read_rows(self) -> Mapping[str, Iterator[Row]]:
    """Reads images as their rows are asked for: they may not fit in memory.

    Unreadable files are refused when the last of all files has been tried, so
    that the error names them all.
    """
    files = self._images()
    self._num_left = len(files)
    self._unreadable: list[str] = []
    return {split: self._read_split(split, files) for split in layout.SPLITS}

  def after_preparation(self) -> None:
    """Warns of what was left out."""
    if self._unreadable:
      logging.warning("left out of %s: %s", self._root, self._complaint())
    others, empty = list(self._others), []
    for split, folders in self._folders.items():
      for name in self.class_names:
        entries = layout.visible(folders.get(name))
        others += [path for path in entries if not layout.is_image(path)]
        if not any(map(layout.is_image, entries)):
          empty.append(f"{split}/{name}")
    if others:
      logging.warning(
        "%s: ignored %d that are no images in a class folder: %s",
        self._root,
        len(others),
        layout.some([str(path.relative_to(self._root)) for path in others]),
      )
    if empty:
      logging.warning(
        "%s: no images in %s: scores of that split say nothing of the class",
        self._root,
        layout.some(empty),
      )

  def _images(self) -> list[ImageFile]:
    """Returns the images in the order of their rows.

    Raises:
      UserError: a class has no images to train on.
    """
    images = []
    for split, folders in self._folders.items():
      for label, name in enumerate(self.class_names):
        entries = layout.visible(folders.get(name))
        found = [path for path in entries if layout.is_image(path)]
        if not found and split == "train":
          raise UserError(
            f"{folders[name]}: no images of class {name!r} to train on (named "
            f"{', '.join(sorted(image_reader.SUFFIXES))}): add some, or remove"
            " it"
          )
        images += [ImageFile(split, path, label) for path in found]
    return images

  def _read_split(self, split: str, files: list[ImageFile]) -> Iterator[Row]:
    size, color = self.options["image_size"], self.options["color"]
    counts = np.zeros(len(self.class_names), int)
    for row, file in enumerate(files):
      if file.split != split:
        continue
      image, why = None, ""
      try:
        image = image_reader.read_square(file.path, size, color=color)
      except image_reader.UnreadableError as e:
        name = str(file.path.relative_to(self._root))
        # The library's messages mostly repeat the whole path.
        why = str(e).replace(repr(str(file.path)), "it")
        self._unreadable.append(f"{name} ({why})")
      self._num_left -= 1
      if self._unreadable and self.options["unreadable"] == "refuse":
        if not self._num_left:
          raise UserError(
            f"{self._root}: {self._complaint()}; mend or remove them, or leave "
            "them out with --config.dataset.unreadable=skip"
          )
      if image is not None:
        counts[file.label] += 1
        yield image, file.label, row
    if split == "train" and self.options["unreadable"] == "skip":
      for name, count in zip(self.class_names, counts, strict=True):
        if not count:
          raise UserError(
            f"{self._root}: no image of class {name!r} in train can be read: "
            f"{self._complaint()}"
          )

  def _complaint(self) -> str:
    plural = "s" if len(self._unreadable) > 1 else ""
    number = f"{len(self._unreadable)} unreadable image{plural}"
    return f"{number}: {layout.some(self._unreadable)}"

  def _options_config(self) -> tfds.core.BuilderConfig:
    """Returns a config that is the root's own, beside the options'."""
    options = super()._options_config()
    path = str(self._root.resolve())
    digest = hashlib.sha256(path.encode()).hexdigest()[:10]
    name = re.sub(r"[^A-Za-z0-9._-]", "_", self._root.resolve().name)[:40]
    name = f"{name}-{digest}" + (f",{options.name}" if options else "")
    return tfds.core.BuilderConfig(name=name, version=self.VERSION)
