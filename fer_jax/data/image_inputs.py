"""Image files that a command is given: listed, and accounted for."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from fer_jax import output_folder
from fer_jax.data import image_listing, image_reader
from fer_jax.data.image_listing import Skipped
from fer_jax.errors import UserError
from fer_jax.text_output import printable

IN_OUTPUT = "in the output folder"


@dataclasses.dataclass(frozen=True)
class ImageInputs:
  """What was given, as files.

  Attributes:
    images: file -> the input it was found by: itself, or a folder above it; in
      the inputs' order.
    skipped: everything else in the folders, with the reason.
  """

  images: dict[Path, Path]
  skipped: tuple[Skipped, ...]

  def describe_skipped(self) -> str:
    """Returns one line about what was skipped, "" if nothing was."""
    return image_listing.describe_skipped(self.skipped)


def list_inputs(
  inputs: Sequence[Path],
  *,
  output: Path | None = None,
  allow_none: bool = False,
) -> ImageInputs:
  """Lists files as they are named, and all images in folders and below.

  Args:
    inputs: files, whatever their suffix, and folders.
    output: a folder that is written to: what lies in it is skipped, and if an
      input lies in it, only what the package made there.
    allow_none: whether there may be no images.

  Raises:
    UserError: an input does not exist, or there are no images.
  """
  images: dict[Path, Path] = {}
  skipped: dict[Path, Skipped] = {}
  for given in inputs:
    if not os.path.lexists(given):
      raise UserError(
        f"{printable(given)} does not exist: name images, or folders of images"
      )
    if not given.is_dir():
      images.setdefault(given, given)
      continue
    try:
      listing = image_listing.list_images(given)
    except OSError as e:
      raise UserError(
        f"{printable(given)} cannot be listed: {e.strerror or e}"
      ) from e
    left_out = None if output is None or _lies_in(given, output) else output
    made = output_folder.made_files(output) if output else set()
    for path in listing.images:
      if left_out and _lies_in(path, left_out):
        skipped[path] = Skipped(path, IN_OUTPUT)
      elif path in made:  # by an earlier run
        skipped[path] = Skipped(path, image_listing.MADE)
      else:
        images.setdefault(path, given)
    skipped |= {item.path: item for item in listing.skipped}
  found = ImageInputs(images, tuple(skipped.values()))
  broken = any(item.is_image for item in found.skipped)
  if not images and not broken and not allow_none:
    names = ", ".join(printable(given) for given in inputs)
    why = found.describe_skipped() or "it is empty"
    raise UserError(
      f"no images in {names}: {why}; looked for"
      f" {' '.join(sorted(image_reader.SUFFIXES))}"
    )
  return found


def _lies_in(path: Path, folder: Path) -> bool:
  return path.resolve().is_relative_to(folder.resolve())
