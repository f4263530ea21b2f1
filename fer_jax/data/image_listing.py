"""The images in a folder, with an account of every file that is not taken.

Everything that reads a folder of images (datasets, predict, align) lists it
here, so that the same folder always means the same images.
"""

import dataclasses
import functools
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from fer_jax import output_folder
from fer_jax.data import image_reader
from fer_jax.text_output import printable

HEIC_SUFFIXES = image_reader.HEIC_SUFFIXES
HEIC_REASON = image_reader.HEIC_MISSING
NOT_AN_IMAGE = "not an image"
BROKEN_LINK = "broken link"
NOT_REGULAR = "not a regular file"
SEEN_BEFORE = "link to a folder that is already listed"
UNREADABLE_FOLDER = "folder cannot be read"
MADE = "made by fer_jax"
# Written by operating systems into folders and archives; of no use to anyone.
_SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "@eadir"})
# A workdir of `train` has both.
_RUN = frozenset({"config.json", "checkpoints"})
_SHOWN = 10  # names in a message


@dataclasses.dataclass(frozen=True)
class Skipped:
  """A file or folder that is not taken.

  Attributes:
    path: its path.
    reason: why it is not taken.
  """

  path: Path
  reason: str

  @property
  def is_image(self) -> bool:
    """Returns whether it is meant to be an image, but cannot be read as one."""
    return self.reason in (HEIC_REASON, BROKEN_LINK, NOT_REGULAR) and (
      suffix_of(self.path) in image_reader.SUFFIXES | HEIC_SUFFIXES
    )


@dataclasses.dataclass(frozen=True)
class ImageListing:
  """The result of `list_images`.

  Attributes:
    images: regular files with an image's suffix, sorted; not opened yet. Those
      that the package drew are not among them.
    skipped: everything else that is not hidden, sorted, with the reason.
  """

  images: tuple[Path, ...]
  skipped: tuple[Skipped, ...]

  def __repr__(self) -> str:
    return (
      f"ImageListing({len(self.images)} images, {len(self.skipped)} skipped)"
    )


def list_images(folder: str | os.PathLike[str]) -> ImageListing:
  """Lists the images in a folder and in the folders below it.

  Hidden files, `__MACOSX` and what operating systems leave in folders are
  ignored. Links are followed; a folder that is reached twice is listed once.

  Args:
    folder: the folder.

  Raises:
    OSError: `folder` itself cannot be read.

  >>> import tempfile
  >>> folder = Path(tempfile.mkdtemp())
  >>> (folder / "notes.txt").touch(), (folder / "a.png").touch()
  (None, None)
  >>> listing = list_images(folder)
  >>> [path.name for path in listing.images], listing.skipped[0].reason
  (['a.png'], 'not an image')
  """
  root = Path(folder)
  os.listdir(root)  # Raises where the folder itself cannot be read.
  images: list[Path] = []
  skipped: list[Skipped] = []
  for path, reason in _files(root):
    if reason:
      skipped.append(Skipped(path, reason))
    else:
      images.append(path)
  skipped.sort(key=lambda item: item.path)
  return ImageListing(tuple(sorted(images)), tuple(skipped))


def holds_only_made(folder: Path) -> bool:
  """Returns whether all images in a folder were made by the package.

  These are drawings and reports, and what is in a workdir. A folder without
  any image is not such a folder, unless the package made something in it.

  Args:
    folder: most folders of images need not be listed to the end.
  """
  if _is_run(folder):
    return True
  made = False
  for path, reason in _files(folder):
    if not reason or Skipped(path, reason).is_image:
      return False
    made |= reason == MADE
  return made


def _files(root: Path) -> Iterator[tuple[Path, str]]:
  """Yields each file, and why it is not taken as an image: "" if it is.

  Folders that are not taken are yielded, too.
  """

  @functools.cache
  def made_below(folder: Path) -> set[Path]:
    return output_folder.made_files(folder, but="face")

  seen = set[tuple[int, int]]()
  # Folders before links to folders, so that a folder keeps its own name.
  folders, links = [root], list[Path]()
  while folders or links:
    current = folders.pop() if folders else links.pop(0)
    identity = _identity(current)
    if identity in seen:
      if current.is_symlink():
        yield current, SEEN_BEFORE
      continue
    seen.add(identity)
    if current != root and _is_run(current):
      yield current, MADE
      continue
    try:
      entries = sorted(os.scandir(current), key=lambda entry: entry.name)
    except OSError:
      yield current, UNREADABLE_FOLDER
      continue
    made = set().union(*map(made_below, (current, *current.parents)))
    for entry in entries:
      if is_hidden(entry.name):
        continue
      path = current / entry.name
      if path.is_dir():  # An entry's own raises for a link to itself.
        (links if entry.is_symlink() else folders).append(path)
      elif path in made:
        yield path, MADE
      else:
        yield path, why_skipped(path)


def _is_run(folder: Path) -> bool:
  return all((folder / name).exists() for name in _RUN)


def why_skipped(path: Path) -> str:
  """Returns why a file is not taken as an image; "" where it is taken."""
  if path.is_symlink() and not path.exists():  # to a file or a folder
    return BROKEN_LINK
  suffix = suffix_of(path)
  supported = suffix in image_reader.SUFFIXES
  if suffix in HEIC_SUFFIXES:
    supported = image_reader.reads_heic()
  elif not supported:
    return NOT_AN_IMAGE
  try:
    mode = path.stat().st_mode
  except OSError:
    return BROKEN_LINK
  if not stat.S_ISREG(mode):  # Reading a FIFO would wait forever.
    return NOT_REGULAR
  return "" if supported else HEIC_REASON


def suffix_of(path: Path) -> str:
  """Returns a file's suffix in lower case."""
  return path.suffix.lower()


def is_hidden(name: str) -> bool:
  """Returns whether a name is hidden, or left by an operating system.

  >>> is_hidden(".DS_Store"), is_hidden("@eaDir"), is_hidden("face.png")
  (True, True, False)
  """
  return name.startswith((".", "__MACOSX")) or name.lower() in _SYSTEM_FILES


def describe_skipped(
  skipped: Iterable[Skipped], root: str | os.PathLike[str] = ""
) -> str:
  """Returns one line that names the skipped files, grouped by reason.

  Args:
    skipped: of a listing.
    root: paths are shown relative to this folder.

  >>> items = [Skipped(Path("d/a.txt"), NOT_AN_IMAGE)]
  >>> describe_skipped(items, "d")
  '1 not an image (a.txt)'
  """
  by_reason: dict[str, list[str]] = {}
  for item in skipped:
    path = item.path
    if root and path.is_relative_to(root):
      path = path.relative_to(root)
    by_reason.setdefault(item.reason, []).append(printable(path))
  return "; ".join(
    f"{len(names):,} {reason} ({some(names)})"
    for reason, names in by_reason.items()
  )


def some(names: list[str]) -> str:
  """Returns the first names, and how many more there are.

  >>> some(["a", "b"])
  'a, b'
  """
  more = len(names) - _SHOWN
  shown = ", ".join(names[:_SHOWN])
  return f"{shown} and {more:,} more" if more > 0 else shown


def _identity(path: str | os.PathLike[str]) -> tuple[int, int]:
  status = os.stat(path)
  return status.st_dev, status.st_ino
