"""Class folders: where a release of folders keeps its splits and classes."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fer_jax.data import image_reader
from fer_jax.errors import UserError

# Split -> the folder's name.
SPLITS = {
  "train": ("train",),
  "validation": ("validation", "valid", "val"),
  "test": ("test",),
}
LAYOUTS = (
  "ROOT/CLASS/IMAGE, or ROOT/train/CLASS/IMAGE and the same in validation "
  "(or val, valid) and test; without a validation split, "
  "--config.dataset.holdout_validation=0.1 cuts one from train"
)
_NAMED = 10  # files that a message names before it only counts


def class_folders(
  root: Path,
) -> tuple[dict[str, dict[str, Path]], list[Path]]:
  """Finds the splits and the class folders in them.

  Args:
    root: holds split folders, or class folders, which are all training then.

  Returns:
    Split -> class -> folder, the classes sorted, and what else lies there.

  Raises:
    UserError: `root` is missing or laid out in another way.
  """
  if not root.is_dir():
    raise UserError(
      f"dataset.manual_dir={root} is no folder: give ROOT of {LAYOUTS}"
    )
  entries = visible(root)
  roots = {}
  for split, names in SPLITS.items():
    found = [e for e in entries if e.name.lower() in names and e.is_dir()]
    if len(found) > 1:
      both = " and ".join(path.name for path in found)
      raise UserError(f"{root}: {both} are both the {split} split: keep one")
    if found:
      roots[split] = found[0]
  others = []
  if roots and "train" not in roots:
    there = " and ".join(path.name for path in roots.values())
    raise UserError(f"{root}: there is {there} but no train: give {LAYOUTS}")
  if roots:
    others = [path for path in entries if path not in roots.values()]
  else:
    roots = {"train": root}
  folders: dict[str, dict[str, Path]] = {}
  for split, folder in roots.items():
    entries = visible(folder)
    folders[split] = {path.name: path for path in entries if path.is_dir()}
    others += [path for path in entries if path.name not in folders[split]]
  if len(folders["train"]) < 2:
    there = ", ".join(folders["train"]) or "none"
    raise UserError(
      f"{roots['train']}: two or more class folders are needed and there is "
      f"{there}: give ROOT of {LAYOUTS}"
    )
  for split, classes in folders.items():
    only = [name for name in classes if name not in folders["train"]]
    if only:
      raise UserError(
        f"{roots[split]}: no class {some(only)} in train, whose classes are "
        f"{', '.join(folders['train'])}: rename or remove it"
      )
  return folders, others


def fingerprint(root: Path, files: Iterable[Path]) -> dict[str, Any]:
  """Returns names, sizes and times of change: other ones, another release.

  Args:
    root: of the release.
    files: in it, each once.
  """
  names = hashlib.sha256()
  count = size = mtime_ns = 0
  for file in files:
    stat = file.stat()
    count += 1
    size += stat.st_size
    mtime_ns = max(mtime_ns, stat.st_mtime_ns)
    # A file that changes its class keeps its size and time.
    names.update(f"{file.relative_to(root)}\0".encode("utf-8", "replace"))
  return {
    "path": str(root.resolve()),
    "num_files": count,
    "size": size,
    "mtime_ns": mtime_ns,
    "names": names.hexdigest(),
  }


def is_image(path: Path) -> bool:
  """Tells an image, which may still be damaged, by its name."""
  return path.suffix.lower() in image_reader.SUFFIXES


def visible(folder: Path | None) -> list[Path]:
  """Returns what is in a folder, sorted, without hidden files."""
  return sorted(
    path
    for path in (folder.iterdir() if folder else ())
    if not path.name.startswith((".", "__MACOSX"))
  )


def some(names: list[str]) -> str:
  """Joins the first names, and counts the rest."""
  more = len(names) - _NAMED
  shown = ", ".join(names[:_NAMED])
  return f"{shown} and {more} more" if more > 0 else shown
