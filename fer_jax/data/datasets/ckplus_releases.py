"""Finds and reads CK+ in any form of its release.

The official tree of sequences, unpacked; CK+48, the last three frames of each
labeled sequence cropped to 48x48 pixels, as folders or zipped; and
ckextended.csv, a table of one face per sequence in FER2013's columns, without
subjects.

Lucey et al., "The Extended Cohn-Kanade Dataset (CK+): A complete dataset for
action unit and emotion-specified expression", CVPR Workshops 2010
"""

import contextlib
import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from fer_jax.data import image_listing, image_reader
from fer_jax.data.datasets import (
  bounded_io,
  ckplus_sequences,
  ckplus_table,
  class_names,
  fer2013_releases,
  folder_layout,
)
from fer_jax.data.datasets.ckplus_sequences import SIDE, Face, Frame
from fer_jax.data.datasets.source_files import SourceFiles
from fer_jax.errors import MissingRelease, UserError

LAST_FRAMES = 3  # of each sequence, in CK+48
_ZIPS = ("CK+48.zip", "ckplus.zip", "archive.zip")
_FILE = re.compile(r"(S\d+)_(\d+)_(\d+)\.png")
_CLASSES = class_names.CKPLUS_CLASSES[:-1]


class Release(NamedTuple):
  """A release that was found.

  Attributes:
    form: "tree", "images", "zip" or "table".
    path: its folder or file.
  """

  form: str
  path: Path


def search_folders(manual_dir: str, data_dir: str) -> list[Path]:
  """Returns the places that `find` looks in, as `releases` does."""
  if manual_dir and not Path(manual_dir).expanduser().exists():
    raise missing([Path(manual_dir)], given=True)
  return fer2013_releases.search_folders(manual_dir, data_dir)


def find(places: Iterable[Path]) -> list[Release]:
  """Returns the releases in `places`, the one to use first.

  That is the official tree, which has the most, then CK+48, then the table. A
  place may be a folder, a folder that holds a folder `ckplus`, `CK+` or
  `CK+48`, or a release's file.

  Raises:
    UserError: a place is a file of another kind.
  """
  found = []
  for place in places:
    if place.is_file():
      forms = {".zip": "zip", ".csv": "table"}
      form = forms.get(place.suffix.lower())
      if not form:
        raise UserError(
          f"{place}: not a release of CK+, which is {ckplus_table.FILE}, a zip"
          " of CK+48, or a folder"
        )
      found.append(Release(form, place))
      continue
    folders = [place / name for name in ("", "ckplus", "CK+", "CK+48")]
    candidates = [("tree", folder) for folder in folders]
    candidates += [("images", folder) for folder in folders]
    candidates += [("zip", f / name) for f in folders for name in _ZIPS]
    candidates += [("table", folder / ckplus_table.FILE) for folder in folders]
    found += [Release(*c) for c in candidates if _is_release(*c)]
  return found


def _is_release(form: str, path: Path) -> bool:
  if form == "tree":
    return ckplus_sequences.images_folder(path) is not None
  if form == "images":
    return path.is_dir() and len(_class_folders(path)) > 1
  if form == "zip" and path.is_file():
    # Kaggle calls any dataset archive.zip.
    with (
      contextlib.suppress(*bounded_io.BROKEN),
      zipfile.ZipFile(path) as archive,
    ):
      return any(map(_in_class_folder, archive.namelist()))
  return path.is_file()


def _class_folders(folder: Path) -> list[Path]:
  """Returns the folders of expressions, in any case and by any synonym."""
  return [
    path
    for path in folder_layout.visible(folder)
    if class_names.label_of(path.name, _CLASSES) is not None and path.is_dir()
  ]


def missing(places: Iterable[Path], given: bool) -> UserError:
  """Returns the error that says what was looked for, and what to do.

  Args:
    places: where it was looked for.
    given: whether the user gave the place.
  """
  prepared = (
    "; unset dataset.manual_dir to use data prepared before" if given else ""
  )
  return MissingRelease(
    f"no release of CK+ in {' or '.join(map(str, places))}: looked for the "
    "folders cohn-kanade-images and Emotion (Landmarks beside them is used), "
    f"the class folders of CK+48, {', '.join(_ZIPS)} of these, and "
    f"{ckplus_table.FILE}, also in a folder ckplus, CK+ or CK+48 there; the "
    "official zips, extended-cohn-kanade-images.zip, Emotion_labels.zip and "
    "Landmarks.zip, need an agreement form "
    "(https://www.jeffcohn.net/Resources/) and are to be unpacked there; "
    "copies of CK+48 are on Kaggle; or set dataset.manual_dir to where it is"
    f"{prepared}"
  )


def frames(release: Release, last_frames: int, neutral: bool) -> list[Frame]:
  """Lists the frames to read, by subject, sequence and number.

  Args:
    release: any but the table.
    last_frames: how many of each sequence to take, from its end.
    neutral: also the first frame of each sequence, which is neutral.

  Raises:
    UserError: a file is misnamed or missing, or the release has no such
      frames.
  """
  if release.form == "tree":
    return ckplus_sequences.frames(release.path, last_frames, neutral)
  if neutral:
    raise UserError(
      f"{release.path}: CK+48 has no neutral faces, so "
      "dataset.num_classes must be 7; the official tree has them"
    )
  if last_frames > LAST_FRAMES:
    raise UserError(
      f"{release.path}: CK+48 has the last {LAST_FRAMES} frames of a sequence, "
      f"so dataset.last_frames={last_frames} must be at most that; "
      "the official tree has more"
    )
  return _last(_image_frames(release), last_frames)


def _image_frames(release: Release) -> list[Frame]:
  """Returns all frames of CK+48, sorted.

  Some copies hold the images twice, in folders beside each other: of each, the
  one with the shortest path is taken.
  """
  found: dict[tuple[str, str, int], Frame] = {}
  of_sequence: dict[tuple[str, str], str] = {}
  names = sorted(_names(release), key=lambda name: (name.count("/"), name))
  for name in names:
    folder, file = PurePosixPath(name).parts[-2:]
    label = class_names.label_of(folder, _CLASSES)
    if label is None:
      raise UserError(
        f"{release.path}/{name}: no class is called {folder!r}: there are "
        f"{', '.join(_CLASSES)}"
      )
    match = _FILE.fullmatch(file)
    if not match:
      raise UserError(
        f"{release.path}/{name}: the name must be like S010_004_00000017.png, "
        "which tells subject, sequence and frame"
      )
    subject, sequence, number = match.groups()
    first = of_sequence.setdefault((subject, sequence), folder)
    if first != folder:
      raise UserError(
        f"{release.path}/{name}: sequence {subject}_{sequence} is in two "
        f"classes, {first} and {folder}"
      )
    frame = Frame(name, subject, sequence, int(number), label)
    found.setdefault((subject, sequence, frame.number), frame)
  if not found:
    raise UserError(f"{release.path}: no images named CLASS/S010_004_*.png")
  return [frame for _, frame in sorted(found.items())]


def _names(release: Release) -> list[str]:
  if release.form == "zip":
    with _broken_said(release), zipfile.ZipFile(release.path) as archive:
      return [n for n in archive.namelist() if _in_class_folder(n)]
  return [
    path.relative_to(release.path).as_posix()
    for folder in folder_layout.visible(release.path)
    if folder.is_dir()
    for path in folder_layout.visible(folder)
    if folder_layout.is_image(path)
  ]


def _in_class_folder(name: str) -> bool:
  """Returns whether a member of an archive may be an image of CK+48."""
  path = PurePosixPath(name)
  return (
    len(path.parts) >= 2
    and class_names.label_of(path.parent.name, _CLASSES) is not None
    and not any(map(image_listing.is_hidden, path.parts))
    and folder_layout.is_image(Path(name))
  )


def _last(found: list[Frame], count: int) -> list[Frame]:
  """Returns the last frames of each sequence."""
  sequences: dict[tuple[str, str], list[Frame]] = {}
  for frame in found:
    sequences.setdefault((frame.subject, frame.sequence), []).append(frame)
  return [f for frames in sequences.values() for f in frames[-count:]]


def source_files(release: Release, found: list[Frame]) -> SourceFiles:
  """Returns the files of a release that are read."""
  if release.form in ("zip", "table"):
    return SourceFiles.below(release.path, [release.path])
  files = {
    release.path / name
    for frame in found
    for name in (frame.name, frame.landmarks, frame.label_file)
    if name
  }
  return SourceFiles.below(release.path, files)


def read(release: Release, found: list[Frame]) -> Iterator[Face]:
  """Reads a release, in the order of `found`; the table in its own.

  Args:
    release: which.
    found: what `frames` listed; nothing for the table.

  Raises:
    UserError: a file or row is wrong; the message names it.
  """
  with _broken_said(release):
    if release.form == "table":
      yield from ckplus_table.read(release.path)
    elif release.form == "tree":
      yield from ckplus_sequences.read(release.path, found)
    elif release.form == "zip":
      with zipfile.ZipFile(release.path) as archive:
        for row, frame in enumerate(found):
          content = bounded_io.read_member(archive, frame.name)
          yield _face(release.path, frame, content, row)
    else:
      for row, frame in enumerate(found):
        yield _face(release.path, frame, release.path / frame.name, row)


@contextlib.contextmanager
def _broken_said(release: Release) -> Iterator[None]:
  try:
    yield
  except bounded_io.TooLargeError as e:
    raise UserError(f"{release.path}: {e}: is this CK+?") from e
  except bounded_io.BROKEN as e:
    raise UserError(
      f"{release.path}: damaged or truncated ({e or type(e).__name__}):"
      " download the file again"
    ) from e


def _face(root: Path, frame: Frame, file: Path | bytes, row: int) -> Face:
  image = image_reader.read_sized(file, SIDE, f"{root}/{frame.name}")
  return Face(image, frame.label, row, frame.subject)
