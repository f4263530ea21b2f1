r"""Shows where a model looks: Grad-CAM over images, as a contact sheet.

python -m fer_jax.explain --workdir=W [IMAGES_OR_FOLDERS...] \
  [--split=validation] [--count=24] [--layer=layer3_1] [--attention] \
  [--output=explained.png]

Of images that are named, or of random ones of a split. --attention shows the
maps of the model's own CBAM modules instead, one a block.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from jaxtyping import UInt8

from fer_jax import errors
from fer_jax.cli import recipe_flags as command
from fer_jax.data import image_reader
from fer_jax.data.inspect import image_sheets
from fer_jax.evaluation.predictions import open_dataset
from fer_jax.inference import explanation_sheets, predict_images
from fer_jax.inference.trained_model import CHECKPOINTS, Trained


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("workdir", None, "A run of fer_jax.train.", required=True)
  flags.DEFINE_enum("checkpoint", "best", CHECKPOINTS, "Which of its weights.")
  flags.DEFINE_string(
    "split", "validation", "Where images are taken from, if none are named."
  )
  flags.DEFINE_integer("count", 24, "Images of the split.", lower_bound=1)
  flags.DEFINE_integer("seed", 0, "Picks the images.", lower_bound=0)
  flags.DEFINE_string("layer", "", "Whose maps; a fitting one if not given.")
  flags.DEFINE_bool("attention", False, "CBAM's own maps instead of Grad-CAM.")
  flags.DEFINE_string("output", "explained.png", "The picture.")


def main(argv: Sequence[str]) -> None:
  """Draws what the flags say."""
  given = flags.FLAGS
  command.start()
  output = Path(given.output).expanduser()
  if output.suffix.lower() != ".png":
    raise errors.UserError(f"--output={output} must end in .png")
  trained = Trained.load(given.workdir, given.checkpoint)
  if len(argv) > 1:
    images = _read(trained, [Path(name).expanduser() for name in argv[1:]])
    targets = None
  else:
    split = open_dataset(trained, None, None).split(given.split)
    order = np.random.default_rng(given.seed).permutation(len(split))
    rows = split.read(np.sort(order[: given.count]))
    images, targets = rows["image"], rows["target"]
  sheet = explanation_sheets.explain(
    trained, images, targets, layer=given.layer, attention=given.attention
  )
  image_sheets.save(sheet, output)


def _read(trained: Trained, inputs: list[Path]) -> UInt8[np.ndarray, "n h w c"]:
  """Reads images as the model takes them; each is one face."""
  height, _, channels = trained.image_shape
  images = []
  for path in predict_images.find_images(inputs):
    try:
      images.append(image_reader.read_square(path, height, color=channels == 3))
    except image_reader.UnreadableError as e:
      raise errors.UserError(f"cannot read {path}: {e}") from e
  return np.stack(images)


if __name__ == "__main__":
  define_flags()
  errors.run(main, takes_arguments=True)
