r"""Shows the places that speak for a class: Grad-CAM, as a contact sheet.

python -m fer_jax.explain [--workdir=W] [IMAGES_OR_FOLDERS...] \
  [--split=validation] [--count=24] [--layer=layer3_1] [--attention] \
  [--manual_dir=D] [--data_dir=D] [--output=explained.png]

For images that are named, or random ones of a split. --attention shows the maps
of the model's own CBAM modules instead, one per block.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from jaxtyping import UInt8

from fer_jax import errors
from fer_jax.cli import recipe_flags as command
from fer_jax.data import image_reader
from fer_jax.data.image_inputs import list_inputs
from fer_jax.evaluation.predictions import open_dataset
from fer_jax.inference import explanation_sheets
from fer_jax.inference.trained_model import CHECKPOINTS, TrainedModel
from fer_jax.output_folder import check_output, write_output
from fer_jax.pretrained import released
from fer_jax.text_output import printable


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string(
    "workdir", None, "A run, or a released model; a released one if not given."
  )
  flags.DEFINE_enum("checkpoint", "best", CHECKPOINTS, "Which of its weights.")
  flags.DEFINE_string(
    "split", "validation", "Where images are taken from, if none are named."
  )
  flags.DEFINE_integer("count", 24, "Images of the split.", lower_bound=1)
  flags.DEFINE_integer("seed", 0, "Picks the images.", lower_bound=0)
  flags.DEFINE_string("layer", "", "Whose maps; a fitting one if not given.")
  flags.DEFINE_bool("attention", False, "CBAM's own maps instead of Grad-CAM.")
  flags.DEFINE_string(
    "manual_dir", None, "Folder of the dataset's release, if it has moved."
  )
  flags.DEFINE_string(
    "data_dir", None, "Folder of the prepared dataset, if it has moved."
  )
  flags.DEFINE_string("output", "explained.png", "The picture, a PNG.")


def main(argv: Sequence[str]) -> None:
  """Draws what the flags say."""
  given = flags.FLAGS
  command.start()
  output = Path(given.output).expanduser()
  if output.suffix.lower() != ".png":
    raise errors.UserError(f"--output={output} must end in .png")
  trained = released.load_model(given.workdir, given.checkpoint)
  names = [Path(name).expanduser() for name in argv[1:]]
  inputs = list_inputs(names).images if names else {}
  check_output(output, inputs)
  if inputs:
    images, targets = _read(trained, inputs), None
  else:
    dataset = open_dataset(trained, given.manual_dir, given.data_dir)
    split = dataset.split(given.split)
    order = np.random.default_rng(given.seed).permutation(len(split))
    examples = split.read(np.sort(order[: given.count]))
    images, targets = examples["image"], examples["target"]
  sheet = explanation_sheets.explain(
    trained, images, targets, layer=given.layer, attention=given.attention
  )
  with write_output(output, inputs) as temporary:
    sheet.save(temporary, "PNG")
  print(f"wrote {output}: {sheet.width} x {sheet.height} pixels")


def _read(
  trained: TrainedModel, inputs: Iterable[Path]
) -> UInt8[np.ndarray, "n h w c"]:
  """Reads images as the model takes them; each is one face."""
  height, _, channels = trained.image_shape
  images = []
  for path in inputs:
    try:
      images.append(image_reader.read_square(path, height, color=channels == 3))
    except image_reader.UnreadableError as e:
      raise errors.UserError(f"cannot read {printable(path)}: {e}") from e
  return np.stack(images)


if __name__ == "__main__":
  define_flags()
  errors.run(main, takes_arguments=True)
