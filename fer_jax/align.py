r"""Aligns faces: finds them in photos, rotates them upright, crops them.

fer-jax align IMAGES_OR_FOLDERS... --output=DIR [--size=48] [--color] \
  [--margin=0] [--no_face=skip] [--sheet=before_after.png]

Folders keep their structure, so that ROOT/train/CLASS/*.jpg becomes a folder
dataset of aligned faces. Of several faces in an image the largest counts.
Needs the optional extra `faces`.
"""

import dataclasses
from collections.abc import Sequence

from absl import flags

from fer_jax.cli import app, detector_flags
from fer_jax.errors import UserError


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("output", "", "Folder to write the faces to, as PNGs.")
  flags.DEFINE_integer("size", 48, "Side of the faces, pixels.", lower_bound=8)
  flags.DEFINE_bool("color", False, "Writes RGB instead of gray.")
  flags.DEFINE_float(
    "margin",
    0.0,
    "More to show at each side, of a face's size.",
    lower_bound=0.0,
    upper_bound=2.0,
  )
  flags.DEFINE_string(
    "no_face", "skip", "Images without a face: skip | refuse | center."
  )
  detector_flags.define()
  flags.DEFINE_string("sheet", None, "PNG of some images before and after.")


def main(argv: Sequence[str]) -> None:
  """Aligns the images that the command names."""
  given = flags.FLAGS
  if len(argv) < 2:
    raise UserError("name images, or folders of images, to align")
  if not given.output:
    raise UserError("--output=DIR is missing: a folder for the faces")
  from fer_jax.object_stores import urls

  output = urls.require_local(given.output, "output")
  sheet = None
  if given.sheet is not None:
    sheet = urls.require_local(given.sheet, "sheet")
    if sheet.suffix.lower() != ".png":
      raise UserError(f"sheet={sheet} must end in .png")
  from fer_jax.console import say
  from fer_jax.data.image_inputs import list_inputs
  from fer_jax.faces import alignment
  from fer_jax.output_folder import check_output, write_output

  inputs = list_inputs(
    [urls.require_local(name, "image", is_input=True) for name in argv[1:]],
    output=output,
  )
  if sheet:
    check_output(sheet, inputs.images)
  if inputs.skipped:
    say(f"skipped {inputs.describe_skipped()}")
  counts = alignment.align_images(
    inputs.images,
    detector_flags.create(),
    output,
    size=given.size,
    margin=given.margin,
    color=given.color,
    no_face=given.no_face,
    with_sheet=sheet is not None,
  )
  broken = [item for item in inputs.skipped if item.is_image]
  counts = dataclasses.replace(
    counts, unreadable=counts.unreadable + len(broken)
  )
  if sheet and counts.sheet:
    with write_output(sheet, inputs=inputs.images) as temporary:
      counts.sheet.save(temporary, "PNG")
  print(counts)
  if counts.unreadable:
    raise UserError(
      f"{counts.unreadable:,} of {len(inputs.images) + len(broken):,} images"
      " could not be read"
    )


COMMAND = app.Command(
  "align", __doc__, define_flags, main, takes_arguments=True
)

if __name__ == "__main__":
  COMMAND.run()
