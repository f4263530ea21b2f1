r"""Draws a contact sheet of a dataset: random images of each class.

fer-jax contact-sheet --dataset=synthetic_faces [--split=train] \
  [--columns=12] [--option=NAME=VALUE ...] [--output=contact_sheet.png]
"""

from collections.abc import Sequence

from absl import flags

from fer_jax.cli import app, dataset_flags
from fer_jax.errors import UserError


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the command's flags."""
  dataset_flags.define(values)
  flags.DEFINE_string(
    "split", "train", "train | validation | test.", flag_values=values
  )
  flags.DEFINE_integer(
    "columns",
    12,
    "Images per class.",
    lower_bound=1,
    upper_bound=200,
    flag_values=values,
  )
  flags.DEFINE_integer(
    "seed", 0, "Draws the images.", lower_bound=0, flag_values=values
  )
  flags.DEFINE_string(
    "output", "contact_sheet.png", "Picture to write.", flag_values=values
  )


def main(argv: Sequence[str]) -> None:
  """Writes the sheet that the flags ask for."""
  del argv
  given = flags.FLAGS
  from PIL import Image

  from fer_jax.data.inspect import image_sheets
  from fer_jax.object_stores import urls
  from fer_jax.text_output import counted

  output = urls.require_local(given.output, "output")
  kind = Image.registered_extensions().get(output.suffix.lower())
  if kind not in Image.SAVE:
    raise UserError(
      f"output={output} must be a picture's name, such as contact_sheet.png"
    )
  dataset = dataset_flags.load(given)
  split = dataset.split(given.split)
  h, w, _ = dataset.image_shape
  sheet = image_sheets.contact_sheet(
    lambda places: split.read(places)["image"],
    split.targets(),
    dataset.class_names,
    columns=given.columns,
    seed=given.seed,
    title=f"{dataset.name}, {given.split}: {counted(len(split), 'image')} "
    f"of {w} x {h} pixels",
  )
  image_sheets.save(sheet, output)


COMMAND = app.Command("contact-sheet", __doc__, define_flags, main)

if __name__ == "__main__":
  COMMAND.run()
