r"""Predicts the expressions of faces in images, videos and cameras.

python -m fer_jax.predict [--workdir=W] \
  (IMAGES_FOLDERS_OR_URLS... | --video=FILE_OR_URL | --webcam[=0]) \
  [--every=N | --fps=F] [--no-detect] [--min_face=20] [--detect_size=0] \
  [--json] [--csv=FILE] [--annotate=DIR] [--tta=flip] [--batch_size=64]

Finds the faces, rotates them upright and crops them as fer_jax.faces.alignment
does (needs the optional extra `faces`); with --no-detect each image is one
face. Every image has a line, also without faces. Images that cannot be read are
named and skipped, and the exit code is then 1. Videos and cameras need the
optional extra `video`; Ctrl-C ends a camera or a live stream.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from fer_jax import errors
from fer_jax.cli import recipe_flags as command
from fer_jax.evaluation import tta
from fer_jax.faces import detection
from fer_jax.inference import predict_images, video, video_io
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.trained_model import CHECKPOINTS
from fer_jax.pretrained import released


class Camera(flags.IntegerParser):
  """A camera's number; the flag alone, which absl reads as "true", is 0."""

  def parse(self, argument: str | int) -> int:
    """Returns the number."""
    return super().parse(0 if argument == "true" else argument)


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_string(
    "workdir", None, "A run, or a released model; a released one if not given."
  )
  flags.DEFINE_enum("checkpoint", "best", CHECKPOINTS, "Which of its weights.")
  flags.DEFINE_bool(
    "detect", True, "Look for faces; otherwise each image is one."
  )
  flags.DEFINE_enum(
    "detector", "mtcnn", detection.DETECTORS, "What looks for faces."
  )
  flags.DEFINE_float("min_face", 20, "Smallest face to find, in pixels.")
  flags.DEFINE_integer(
    "detect_size",
    0,
    "Longer side that larger images are shrunk to for the search; 0: none.",
  )
  flags.DEFINE_enum("tta", "none", list(tta.VIEWS), "Views to average over.")
  flags.DEFINE_integer(
    "batch_size",
    None,
    "Faces per compiled call; 64, or 4 for a camera.",
    lower_bound=1,
  )
  flags.DEFINE_string("video", None, "A video file, or its URL (http, rtsp).")
  camera = flags.Flag(
    Camera(lower_bound=0), None, "webcam", None, "A camera.", boolean=True
  )
  flags.DEFINE_flag(camera)
  flags.DEFINE_integer("every", 1, "Look for faces in one of so many frames.")
  flags.DEFINE_float("fps", None, "Frames per second to look at.")
  flags.DEFINE_bool(
    "json", False, "Print JSON Lines, one object per image, not a table."
  )
  flags.DEFINE_string("csv", "", "A CSV file to write, a line per face.")
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
  # A camera's frames are predicted one by one.
  batch_size = given.batch_size or (4 if given.webcam is not None else 64)
  trained = released.load_model(given.workdir, given.checkpoint, batch_size)
  detector = None
  if given.detect:
    detector = detection.create_detector(
      given.detector, min_face=given.min_face, detect_size=given.detect_size
    )
  predictor = Predictor(trained, detector, tta=given.tta)
  options: dict[str, Any] = dict(
    detect=given.detect,
    as_json=given.json,
    csv=_path(given.csv),
    annotate=_path(given.annotate),
  )
  if filmed:
    options["sampling"] = video.Sampling(given.every, given.fps)
  if given.webcam is not None:
    found = video.predict_camera(predictor, given.webcam, **options)
    print(found, file=sys.stderr)
    return
  if given.video is not None:
    name = given.video
    if not video_io.is_url(name):
      name = Path(name).expanduser()
    found = video.predict_video(predictor, name, **options)
    print(found, file=sys.stderr)
    return
  counts = predict_images.predict_files(predictor, argv[1:], **options)
  print(counts, file=sys.stderr)
  if counts.unreadable:
    raise errors.UserError(
      f"{counts.unreadable:,} of {counts.images:,} images could not be read"
    )


def _path(name: str) -> Path | None:
  return Path(name).expanduser() if name else None


if __name__ == "__main__":
  define_flags()
  errors.run(main, takes_arguments=True)
