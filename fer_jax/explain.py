r"""Shows the places that speak for a class: Grad-CAM, as a contact sheet.

fer-jax explain [--workdir=W] [IMAGES_OR_FOLDERS...] [--split=validation] \
  [--count=24] [--layer=layer3_1] [--attention] [--output=explained.png]

Finds the faces in the images that are named, as `fer-jax predict` does, or
draws random images of a split. --attention shows the maps of the model's own
CBAM modules instead, one per block.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from fer_jax.cli import app, detector_flags, model_flags
from fer_jax.errors import UserError

if TYPE_CHECKING:  # The commands' --help is to be quick.
  import numpy as np

  from fer_jax.inference.predictor import Predictor


def define_flags() -> None:
  """Defines the command's flags."""
  model_flags.define_workdir()
  flags.DEFINE_bool("detect", True, "Takes each image as one face.")
  detector_flags.define()
  flags.DEFINE_string("split", "validation", "Split, if no images are named.")
  flags.DEFINE_integer("count", 24, "Images of the split.", lower_bound=1)
  flags.DEFINE_integer("seed", 0, "Draws the images.", lower_bound=0)
  flags.DEFINE_string("layer", "", "Layer to map; a suitable one if unset.")
  flags.DEFINE_bool("attention", False, "CBAM's own maps, not Grad-CAM.")
  flags.DEFINE_string("manual_dir", None, "Folder of the release, if moved.")
  flags.DEFINE_string("data_dir", None, "Folder of prepared data, if moved.")
  flags.DEFINE_string("output", "explained.png", "PNG to write.")


def main(argv: Sequence[str]) -> None:
  """Draws what the flags say."""
  given = flags.FLAGS
  from fer_jax.object_stores import urls

  output = urls.require_local(given.output, "output")
  if output.suffix.lower() != ".png":
    raise UserError(f"output={output} must end in .png")
  model_flags.start()
  from fer_jax.api import explain_model
  from fer_jax.console import say
  from fer_jax.data.image_inputs import list_inputs
  from fer_jax.inference.predictor import Predictor
  from fer_jax.output_folder import check_output, write_output
  from fer_jax.pretrained import released

  trained = released.load_model(given.workdir, given.checkpoint)
  names = [
    urls.require_local(name, "image", is_input=True) for name in argv[1:]
  ]
  inputs: dict[Path, Path] = {}
  num_skipped = num_unreadable = 0
  if names:
    found = list_inputs(names)
    inputs = found.images
    if not inputs:
      raise UserError(f"no image can be read: {found.describe_skipped()}")
    if found.skipped:
      say(f"skipped {found.describe_skipped()}")
    num_skipped = sum(item.is_image for item in found.skipped)
  check_output(output, inputs)
  detector = detector_flags.create() if names and given.detect else None
  model = Predictor(trained, detector)
  faces = None
  if names:
    faces, num_unreadable = _faces(model, list(inputs), given.detect)
  sheet = explain_model(
    model,
    faces,
    split=given.split,
    count=given.count,
    seed=given.seed,
    layer=given.layer,
    attention=given.attention,
    manual_dir=given.manual_dir,
    data_dir=given.data_dir,
  )
  with write_output(output, inputs) as temporary:
    sheet.save(temporary, "PNG")
  print(f"wrote {output}: {sheet.width} x {sheet.height} pixels")
  if num_unreadable := num_unreadable + num_skipped:
    raise UserError(
      f"{num_unreadable:,} of {len(inputs) + num_skipped:,} images could not be"
      " read"
    )


def _faces(
  model: "Predictor", paths: Sequence[Path], detect: bool
) -> "tuple[list[np.ndarray], int]":
  """Returns the faces in images, and how many images cannot be read.

  Args:
    model: finds the faces.
    paths: of the images.
    detect: whether to look for faces.

  Returns:
    Faces as the model takes them, uint8 `[h w c]`, and the number.

  Raises:
    UserError: no image can be read, or none has a face.
  """
  from fer_jax.console import say
  from fer_jax.inference.prediction_stream import NamedImage
  from fer_jax.text_output import printable

  faces: list[np.ndarray] = []
  num_unreadable = 0
  images = (NamedImage(str(path), path) for path in paths)
  for result in model.stream(images, detect):
    if result.error:
      num_unreadable += 1
      source, why = printable(result.source), printable(result.error)
      say(f"cannot read {source}: {why}")
    elif not result.faces:
      say(f"{printable(result.source)}: no face found")
    faces += [face.crop for face in result.faces]
  if num_unreadable == len(paths):
    raise UserError("no image could be read")
  if not faces:
    raise UserError("no face found: --no-detect takes each image as one face")
  return faces, num_unreadable


COMMAND = app.Command(
  "explain", __doc__, define_flags, main, takes_arguments=True
)

if __name__ == "__main__":
  COMMAND.run()
