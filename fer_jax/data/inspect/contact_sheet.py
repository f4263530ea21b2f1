r"""Draws a contact sheet: a row of random images of each class.

python -m fer_jax.data.inspect.contact_sheet --dataset=synthetic_faces \
  [--split=train] [--columns=12] [--option=NAME=VALUE ...] \
  [--output=contact_sheet.png]
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags
from PIL import Image

from fer_jax import errors
from fer_jax.cli import dataset_flags
from fer_jax.data.inspect import image_sheets


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the command's flags; other commands have some of these names."""
  dataset_flags.define(values)
  flags.adopt_module_key_flags(dataset_flags, values)
  flags.DEFINE_string(
    "split", "train", "train, validation or test.", flag_values=values
  )
  flags.DEFINE_integer(
    "columns", 12, "Images of each class.", lower_bound=1, flag_values=values
  )
  flags.DEFINE_integer(
    "seed", 0, "Picks the images.", lower_bound=0, flag_values=values
  )
  flags.DEFINE_string(
    "output",
    "contact_sheet.png",
    "The picture's file; its end tells the format.",
    flag_values=values,
  )


def main(argv: Sequence[str]) -> None:
  """Writes the sheet that the flags ask for."""
  del argv
  given = flags.FLAGS
  output = Path(given.output).expanduser()
  if output.suffix.lower() not in Image.registered_extensions():
    raise errors.UserError(
      f"--output={output}: give a picture's name, such as contact_sheet.png"
    )
  dataset = dataset_flags.load(given)
  arrays = dataset.split(given.split).arrays()
  n, h, w, _ = arrays["image"].shape
  sheet = image_sheets.contact_sheet(
    arrays["image"],
    arrays["target"],
    dataset.class_names,
    columns=given.columns,
    seed=given.seed,
    title=f"{dataset.name}, {given.split}: {image_sheets.counted(n)} "
    f"of {w} x {h} pixels",
  )
  image_sheets.save(sheet, output)


if __name__ == "__main__":
  define_flags()
  errors.run(main)
