r"""Says what faces in images express.

python -m fer_jax.predict --workdir=W IMAGES_OR_FOLDERS... \
  [--no-detect] [--json] [--annotate=DIR] [--tta=flip] [--batch_size=64]

Finds the faces, turns them upright and cuts them as fer_jax.data.align does
(needs the optional extra `faces`); with --no-detect each image is one face.
Images that cannot be read are named and skipped, and the exit code is then 1.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from fer_jax import command, errors
from fer_jax.evaluation import answers, views
from fer_jax.evaluation.predictor import Predictor
from fer_jax.evaluation.trained import CHECKPOINTS, Trained


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("workdir", None, "A run of fer_jax.train.", required=True)
  flags.DEFINE_enum("checkpoint", "best", CHECKPOINTS, "Which of its weights.")
  flags.DEFINE_bool(
    "detect", True, "Look for faces; otherwise each image is one."
  )
  flags.DEFINE_enum("tta", "none", list(views.VIEWS), "Views to average over.")
  flags.DEFINE_integer(
    "batch_size", 64, "Faces classified at once.", lower_bound=1
  )
  flags.DEFINE_bool("json", False, "A line of JSON a face, instead of a table.")
  flags.DEFINE_string("annotate", "", "A folder for copies with boxes drawn.")


def main(argv: Sequence[str]) -> None:
  """Predicts as the flags say."""
  given = flags.FLAGS
  command.quieten_libraries()
  if len(argv) < 2:
    raise errors.UserError("name images, or folders of images, to look at")
  inputs = [Path(name).expanduser() for name in argv[1:]]
  trained = Trained.load(given.workdir, given.checkpoint, given.batch_size)
  counts = answers.answer(
    Predictor(trained, tta=given.tta),
    answers.find_images(inputs),
    detect=given.detect,
    as_json=given.json,
    annotate=Path(given.annotate).expanduser() if given.annotate else None,
  )
  print(counts, file=sys.stderr)
  if counts.unreadable:
    raise errors.UserError(
      f"{counts.unreadable:,} of {counts.images:,} images could not be read"
    )


if __name__ == "__main__":
  define_flags()
  errors.run(main, takes_arguments=True)
