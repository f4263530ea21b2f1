r"""Shows the places that speak for a class: Grad-CAM, as a contact sheet.

fer-jax explain [--workdir=W] [IMAGES_OR_FOLDERS...] [--split=validation] \
  [--count=24] [--layer=layer3_1] [--attention] [--output=explained.png]

Uses the images that are named, or random ones of a split. --attention shows
the maps of the model's own CBAM modules instead, one per block.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from fer_jax.cli import app, model_flags
from fer_jax.errors import UserError

if TYPE_CHECKING:  # The commands' --help is to be quick.
  import numpy as np

  from fer_jax.inference.trained_model import TrainedModel


def define_flags() -> None:
  """Defines the command's flags."""
  model_flags.define_workdir()
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
  output = Path(given.output).expanduser()
  if output.suffix.lower() != ".png":
    raise UserError(f"output={output} must end in .png")
  model_flags.start()
  from fer_jax.api import explain_model, load_model
  from fer_jax.data.image_inputs import list_inputs
  from fer_jax.output_folder import check_output, write_output

  model = load_model(given.workdir, checkpoint=given.checkpoint)
  names = [Path(name).expanduser() for name in argv[1:]]
  inputs = list_inputs(names).images if names else {}
  check_output(output, inputs)
  sheet = explain_model(
    model,
    _read(model.trained, inputs) if inputs else None,
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


def _read(trained: "TrainedModel", inputs: Iterable[Path]) -> "np.ndarray":
  """Reads images as the model takes them; each is one face."""
  import numpy as np

  from fer_jax.data import image_reader
  from fer_jax.text_output import printable

  height, _, channels = trained.image_shape
  images = []
  for path in inputs:
    try:
      images.append(image_reader.read_square(path, height, color=channels == 3))
    except image_reader.UnreadableError as e:
      raise UserError(f"cannot read {printable(path)}: {e}") from e
  return np.stack(images)


COMMAND = app.Command(
  "explain", __doc__, define_flags, main, takes_arguments=True
)

if __name__ == "__main__":
  COMMAND.run()
