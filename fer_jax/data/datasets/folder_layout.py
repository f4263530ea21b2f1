"""Class folders: the splits and classes of a release of folders."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from pathlib import Path

from fer_jax.data import image_listing, image_reader
from fer_jax.data.datasets.image_files import ImageFile
from fer_jax.data.image_listing import ImageListing, Skipped, some
from fer_jax.errors import UserError
from fer_jax.text_output import printable

# Split -> the names of its folder, in any case.
SPLITS = {
  "train": ("train", "training"),
  "validation": ("validation", "valid", "val", "dev", "publictest"),
  "test": ("test", "testing", "privatetest"),
}
LAYOUTS = (
  "ROOT/CLASS/IMAGE, or ROOT/train/CLASS/IMAGE and the same in validation "
  "(or val, valid) and test; without a validation split, "
  "dataset.holdout_validation=0.1 takes one from train"
)
_LIKE_A_SPLIT = re.compile(
  r"(?<![a-z])(train|training|valid|validation|val|dev|test|testing|fold)"
  r"(?![a-z])",
  re.IGNORECASE,
)
# Files or folders that only the release of another dataset has.
_OTHER_RELEASES = (
  (("train_set/annotations", "val_set/annotations"), "affectnet"),
  (("EmoLabel", "basic/EmoLabel", "Image/aligned"), "rafdb"),
  (("cohn-kanade-images", "extended-cohn-kanade-images"), "ckplus"),
  (("fer2013.csv", "icml_face_data.csv", "fer2013.tar.gz"), "fer2013"),
)


def class_folders(
  root: Path,
) -> tuple[dict[str, dict[str, Path]], list[Path]]:
  """Finds the splits and the class folders in them.

  Args:
    root: holds split folders, or class folders, which are all training then.

  Returns:
    Split -> class -> folder, the classes sorted, and what else is there.

  Raises:
    UserError: `root` is missing or has another layout; the message says which
      layout was recognized, and what is missing.
  """
  if not root.is_dir():
    raise UserError(
      f"dataset.manual_dir={printable(root)} is no folder: give ROOT of "
      f"{LAYOUTS}"
    )
  entries = visible(root)
  roots = split_folders(root)
  others = []
  if roots and "train" not in roots:
    there = " and ".join(printable(path.name) for path in roots.values())
    raise UserError(
      f"{printable(root)}: the folder {there} was recognized, but there is no "
      f"train: give {LAYOUTS}{hint(root)}"
    )
  if roots:
    others = [path for path in entries if path not in roots.values()]
  else:
    roots = {"train": root}
    _check_classes(root, [path.name for path in entries if path.is_dir()])
  folders: dict[str, dict[str, Path]] = {}
  for split, folder in roots.items():
    folders[split] = _classes(folder)
    taken = folders[split].values()
    others += [path for path in visible(folder) if path not in taken]
  if len(folders["train"]) < 2:
    there = ", ".join(folders["train"]) or "none"
    images = len([p for p in visible(roots["train"]) if is_image(p)])
    loose = f" ({images:,} images are in no class folder)" if images else ""
    broken = [p.name for p in visible(roots["train"]) if not p.exists()]
    if broken:
      loose += f" (broken links: {some(broken)})"
    raise UserError(
      f"{printable(roots['train'])}: two or more class folders are needed and "
      f"there is {there}{loose}: give ROOT of {LAYOUTS}{hint(root)}"
    )
  for split, classes in folders.items():
    only = [name for name in classes if name not in folders["train"]]
    if only:
      raise UserError(
        f"{printable(roots[split])}: no class {some(only)} in train, whose "
        f"classes are {', '.join(folders['train'])}: rename or remove it"
      )
  return folders, others


def _check_classes(root: Path, names: list[str]) -> None:
  """Refuses folders that are splits of other names, such as train_set."""
  if names and all(map(_LIKE_A_SPLIT.search, names)):
    raise UserError(
      f"{printable(root)}: the folders {some(names)} look like splits, not"
      " classes: name them train, validation and test, or give the one to"
      f" train on as dataset.manual_dir ({LAYOUTS}){hint(root)}"
    )


def split_folders(root: Path) -> dict[str, Path]:
  """Returns the folders of splits in `root`, by split.

  Raises:
    UserError: a split has two.
  """
  roots = {}
  entries = visible(root)
  for split, names in SPLITS.items():
    found = [e for e in entries if e.name.lower() in names and e.is_dir()]
    if len(found) > 1:
      both = " and ".join(path.name for path in found)
      raise UserError(
        f"{printable(root)}: {both} are both the {split} split: keep one"
      )
    if found:
      roots[split] = found[0]
  return roots


def class_folder_images(
  splits: Mapping[str, Path], label_of: Callable[[str], int | None], what: str
) -> tuple[dict[str, list[ImageFile]], list[Skipped]]:
  """Lists images in one folder per class.

  Args:
    splits: split -> the folder of its class folders.
    label_of: returns a class by the name of its folder; None for no class.
    what: the classes that there are, for the message.

  Raises:
    UserError: a folder is no class.
  """
  images: dict[str, list[ImageFile]] = {}
  skipped: list[Skipped] = []
  row = 0
  for split, folder in splits.items():
    images[split] = []
    for path in visible(folder):
      if not path.is_dir():
        skipped.append(Skipped(path, "not in a class folder"))
        continue
      label = label_of(path.name)
      if label is None:
        raise UserError(
          f"{printable(path)}: no class is called {printable(path.name)!r}:"
          f" there are {what}"
        )
      listing = image_listing.list_images(path)
      skipped += listing.skipped
      for image in listing.images:
        images[split].append(ImageFile(image, label, row))
        row += 1
  return images, skipped


def hint(root: Path) -> str:
  """Returns the dataset whose release `root` looks like, for a message."""
  for names, dataset in _OTHER_RELEASES:
    if any((root / name).exists() for name in names):
      return (
        f"; this looks like a release of {dataset}: use dataset.name={dataset}"
      )
  return ""


def empty_class(folder: Path, name: str, listing: ImageListing) -> UserError:
  """Returns the error of a class without images to train on."""
  skipped = ""
  if listing.skipped:
    described = image_listing.describe_skipped(listing.skipped, folder)
    skipped = f" (skipped {described})"
  return UserError(
    f"{printable(folder)}: no images of class {name!r} to train on (named "
    f"{', '.join(sorted(image_reader.SUFFIXES))}){skipped}: add some, or "
    "remove it"
  )


def is_image(path: Path) -> bool:
  """Returns whether a file is an image by its name; it may be damaged."""
  return path.suffix.lower() in image_reader.SUFFIXES


def visible(folder: Path) -> list[Path]:
  """Returns what is in a folder, sorted, without hidden files."""
  return sorted(
    path for path in folder.iterdir() if not image_listing.is_hidden(path.name)
  )


def _classes(folder: Path) -> dict[str, Path]:
  """Returns the class folders by name, sorted.

  Workdirs, and folders of drawings or reports that the package made, are no
  classes.
  Names are composed (NFC) where macOS has decomposed them, and bytes that are
  no UTF-8 are escaped, so that any file and terminal can hold them.
  """
  found: dict[str, Path] = {}
  for path in visible(folder):
    if path.is_dir() and not image_listing.holds_only_made(path):
      name = printable(unicodedata.normalize("NFC", path.name))
      if name in found:
        raise UserError(
          f"{printable(folder)}: two folders are named {name!r}: merge them"
        )
      found[name] = path
  return dict(sorted(found.items()))
