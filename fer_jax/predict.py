r"""Says what faces in images express.

python -m fer_jax.predict --workdir=W \
  (IMAGES_OR_FOLDERS... | --video=FILE | --webcam[=0]) [--every=N | --fps=F] \
  [--no-detect] [--json] [--annotate=DIR] [--tta=flip] [--batch_size=64]

Finds the faces, turns them upright and cuts them as fer_jax.faces.alignment
does (needs the optional extra `faces`); with --no-detect each image is one
face. Images that cannot be read are named and skipped, and the exit code is
then 1. Videos and cameras need the optional extra `video`; Ctrl-C ends a
camera.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from fer_jax import errors
from fer_jax.cli import recipe_flags as command
from fer_jax.evaluation import tta
from fer_jax.inference import predict_images, video
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.trained_model import CHECKPOINTS, Trained


class Camera(flags.IntegerParser):
  """A camera's number; the flag alone, which absl reads as "true", is 0."""

  def parse(self, argument: str | int) -> int:
    """Returns the number."""
    return super().parse(0 if argument == "true" else argument)


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string("workdir", None, "A run of fer_jax.train.", required=True)
  flags.DEFINE_enum("checkpoint", "best", CHECKPOINTS, "Which of its weights.")
  flags.DEFINE_bool(
    "detect", True, "Look for faces; otherwise each image is one."
  )
  flags.DEFINE_enum("tta", "none", list(tta.VIEWS), "Views to average over.")
  flags.DEFINE_integer(
    "batch_size",
    None,
    "Faces classified at once; 64, or 4 of a camera.",
    lower_bound=1,
  )
  flags.DEFINE_string("video", None, "A video to look at.")
  camera = flags.Flag(
    Camera(lower_bound=0), None, "webcam", None, "A camera.", boolean=True
  )
  flags.DEFINE_flag(camera)
  flags.DEFINE_integer("every", 1, "Looks at the first of so many frames.")
  flags.DEFINE_float("fps", None, "Looks at so many frames a second.")
  flags.DEFINE_bool("json", False, "A line of JSON a face, instead of a table.")
  flags.DEFINE_string("annotate", "", "A folder for copies with boxes drawn.")


def main(argv: Sequence[str]) -> None:
  """Predicts as the flags say."""
  given = flags.FLAGS
  command.start()
  filmed = (given.video is not None) + (given.webcam is not None)
  if filmed + (len(argv) > 1) != 1:
    raise errors.UserError(
      "name images, or folders of images, to look at; or give --video=FILE or"
      " --webcam, one of them"
    )
  if not filmed and (given.every != 1 or given.fps is not None):
    raise errors.UserError(
      "--every and --fps are for --video and --webcam: leave them out"
    )
  # A camera's frames are answered one by one.
  batch_size = given.batch_size or (4 if given.webcam is not None else 64)
  trained = Trained.load(given.workdir, given.checkpoint, batch_size)
  predictor = Predictor(trained, tta=given.tta)
  options: dict[str, Any] = dict(
    detect=given.detect,
    as_json=given.json,
    annotate=Path(given.annotate).expanduser() if given.annotate else None,
  )
  if filmed:
    options["sampling"] = video.Sampling(given.every, given.fps)
  if given.webcam is not None:
    print(video.watch(predictor, given.webcam, **options), file=sys.stderr)
    return
  if given.video is not None:
    path = Path(given.video).expanduser()
    print(video.answer(predictor, path, **options), file=sys.stderr)
    return
  paths = predict_images.find_images(
    [Path(name).expanduser() for name in argv[1:]]
  )
  counts = predict_images.answer(predictor, paths, **options)
  print(counts, file=sys.stderr)
  if counts.unreadable:
    raise errors.UserError(
      f"{counts.unreadable:,} of {counts.images:,} images could not be read"
    )


if __name__ == "__main__":
  define_flags()
  errors.run(main, takes_arguments=True)
