"""Datasets whose releases are image files: decoded in parallel, once."""

import abc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from absl import logging

from fer_jax.data import image_listing, image_reader
from fer_jax.data.datasets import release_places
from fer_jax.data.datasets.builder import Example, FaceBuilder, SourceFiles
from fer_jax.data.image_listing import Skipped, some
from fer_jax.data.parallel import map_in_order
from fer_jax.errors import UserError, choose, require
from fer_jax.text_output import counted, printable


class ImageFile(NamedTuple):
  """An image before it is read."""

  path: Path
  label: int
  row: int


class FoundFiles(NamedTuple):
  """The files of a release.

  Attributes:
    root: folder of the release.
    images: split -> its images, in order.
    skipped: files that are not taken, with reasons.
    label_files: files that hold the labels.
  """

  root: Path
  images: Mapping[str, Sequence[ImageFile]]
  skipped: Sequence[Skipped] = ()
  label_files: Sequence[Path] = ()


class ImageFileExamples:
  """The examples of one split's files; unreadable ones are left out.

  Attributes:
    files: in order.
    unreadable: position of each unreadable file -> its name and why.
  """

  def __init__(
    self, root: Path, files: Sequence[ImageFile], size: int, color: bool
  ):
    self.unreadable: dict[int, str] = {}
    self.files = files
    self._root = root
    self._size, self._color = size, color

  def __len__(self) -> int:
    return len(self.files)

  def read(self, start: int) -> Iterator[tuple[int, Example]]:
    """Yields the position after each example, and the example, in order."""
    numbered = enumerate(self.files[start:], start)
    for position, image in map_in_order(self._read_one, numbered):
      if isinstance(image, str):
        self.unreadable[position] = image
      else:
        file = self.files[position]
        yield position + 1, (image, file.label, file.row)

  def state(self) -> Any:
    """Returns the unreadable files so far."""
    return list(self.unreadable.items())

  def restore(self, state: Any) -> None:
    """Restores the unreadable files of an interrupted preparation."""
    self.unreadable = {int(position): str(why) for position, why in state}

  def _read_one(self, item: tuple[int, ImageFile]) -> tuple[int, Any]:
    position, file = item
    try:
      image = image_reader.read_square(file.path, self._size, color=self._color)
    except image_reader.UnreadableError as e:
      return position, f"{_relative(file.path, self._root)} ({e})"
    return position, image


class ImageFileBuilder(FaceBuilder):
  """The base of datasets of image files, made squares of one size once.

  A subclass implements `find_in`. `image_reader.read_square` says how an
  image is read. Options: `image_size`, height and width to resize to, in
  pixels; `color`, three channels instead of one; `unreadable`, whether files
  that cannot be read are an error ("refuse") or left out ("skip").
  """

  default_options: ClassVar[Mapping[str, Any]] = {
    "image_size": 48,
    "color": False,
    "unreadable": "refuse",
  }
  # Names of the release's folder, where releases of other datasets may lie too.
  release_folders: ClassVar[tuple[str, ...]] = ()

  def __init__(self, **kwargs: Any):
    options = {**self.default_options, **kwargs}
    size = options["image_size"]
    ok = isinstance(size, int) and 8 <= size <= 1024
    require(ok, "dataset.image_size", size, "be an integer from 8 to 1024")
    ok = isinstance(options["color"], bool)
    require(ok, "dataset.color", options["color"], "be True or False")
    choose("dataset.unreadable", options["unreadable"], ("refuse", "skip"))
    self._listed = False
    self._found: FoundFiles | None = None
    super().__init__(**kwargs)

  @abc.abstractmethod
  def find_in(self, root: Path) -> FoundFiles | None:
    """Returns the files of the release in a folder; None if it has none.

    Raises:
      UserError: the release is wrong.
      OSError: a folder cannot be read.
    """

  def find_files(self) -> FoundFiles | None:
    """Returns the files of the release; None where there is no release.

    Raises:
      UserError: the release is wrong, or missing where it was asked for.
      OSError: a folder cannot be read.
    """
    for root in release_places.candidate_folders(
      self.manual_dir, self.data_root, self.release_folders
    ):
      if found := self.find_in(root):
        return found
    if self.manual_dir:
      raise UserError(f"{printable(self.manual_dir)}: {self.missing()}")
    return None

  def labeled(self, found: FoundFiles) -> Mapping[str, Sequence[ImageFile]]:
    """Returns the images with their labels, where these are in other files."""
    return found.images

  def official_counts(self) -> Mapping[str, Sequence[int]]:
    """Returns the official number of examples of each class, by split."""
    return {}

  def missing(self) -> UserError:
    """Returns the error of a release that is not there."""
    return UserError(f"no release of {self.name}: set dataset.manual_dir")

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """Height, width and channels, by the options."""
    size = self.options["image_size"]
    return size, size, 3 if self.options["color"] else 1

  def found(self) -> FoundFiles | None:
    """Returns what `find_files` does; looks only once.

    Raises:
      UserError: in it are folders or images that cannot be read at all, such
        as HEIC without its package, and `unreadable` is "refuse".
    """
    if self._listed:
      return self._found
    try:
      found = self.find_files()
    except OSError as e:
      raise UserError(
        f"cannot read the release of {self.name}: {printable(str(e))}; set "
        "dataset.manual_dir to a folder that can be read"
      ) from e
    refused = [
      item
      for item in (found.skipped if found else ())
      if item.is_image or item.reason == image_listing.UNREADABLE_FOLDER
    ]
    if found and refused and self.options["unreadable"] == "refuse":
      described = image_listing.describe_skipped(refused, found.root)
      raise UserError(
        f"{printable(found.root)}: images that cannot be read: {described};"
        " fix or remove them, or leave them out with dataset.unreadable=skip"
      )
    self._found, self._listed = found, True
    return found

  def source(self) -> SourceFiles | None:
    """Returns the files that would be read now."""
    found = self.found()
    if not found:
      return None
    paths = [file.path for files in found.images.values() for file in files]
    return SourceFiles.below(found.root, [*paths, *found.label_files])

  def origin(self) -> str:
    """Returns the folder of the release."""
    found = self.found()
    return str(found.root) if found else ""

  def read_examples(self) -> Mapping[str, ImageFileExamples]:
    """Returns examples that are decoded as they are asked for.

    Raises:
      UserError: there is no release.
    """
    found = self.found()
    if not found:
      raise self.missing()
    self._examples = {
      split: ImageFileExamples(
        found.root, files, self.options["image_size"], self.options["color"]
      )
      for split, files in self.labeled(found).items()
    }
    return self._examples

  def extra_metadata(self) -> dict[str, Any]:
    """Refuses unreadable files, after all have been tried.

    Raises:
      UserError: there are some, and `unreadable` is "refuse"; all are named.
    """
    if self.options["unreadable"] == "refuse" and self.unreadable():
      raise UserError(
        f"{printable(self.origin())}: {self._complaint()}; fix or remove them,"
        " or leave them out with dataset.unreadable=skip"
      )
    return {}

  def unreadable(self) -> list[str]:
    """Returns name and reason of all files that could not be decoded."""
    return [
      why
      for examples in self._examples.values()
      for _, why in sorted(examples.unreadable.items())
    ]

  def after_preparation(self) -> None:
    """Warns of what was left out."""
    found = self.found()
    assert found is not None  # It has been read.
    root = printable(found.root)
    if self.unreadable():
      logging.warning("%s: left out %s", root, self._complaint())
    if found.skipped:
      described = image_listing.describe_skipped(found.skipped, found.root)
      logging.warning("%s: skipped %s", root, described)
    differing = self.other_counts()
    if differing:
      logging.warning(
        "%s differs from the official %s: %s",
        root,
        self.name,
        "; ".join(differing),
      )

  def other_counts(self) -> list[str]:
    """Describes the splits that have other counts than the official ones."""
    found = []
    for split, official in self.official_counts().items():
      examples = self._examples.get(split)
      counts = [0] * len(official)
      for position, file in enumerate(examples.files if examples else ()):
        if examples and position not in examples.unreadable:
          counts[file.label] += 1
      pairs = zip(self.class_names, counts, official, strict=True)
      wrong = [
        f"{name} {count:,} (official: {expected:,})"
        for name, count, expected in pairs
        if count != expected
      ]
      if wrong:
        total = f"{sum(counts):,} (official: {sum(official):,})"
        found.append(f"{split} has {total}: {', '.join(wrong)}")
    return found

  def _complaint(self) -> str:
    names = self.unreadable()
    return f"{counted(len(names), 'unreadable image')}: {some(names)}"


def _relative(path: Path, root: Path) -> str:
  return printable(path.relative_to(root) if root in path.parents else path)
