r"""Predicts the expressions of faces in images, videos and cameras.

fer-jax predict [--workdir=W] (IMAGES_FOLDERS_OR_URLS... | --video=FILE_OR_URL
  | --webcam)

Finds the faces and aligns them (needs the extra `faces`). Images that cannot be
read are reported and skipped, and the exit status is then 1. Videos and cameras
need the extra `video`; Ctrl-C ends a camera or a live stream.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from fer_jax.cli import app, detector_flags, model_flags
from fer_jax.console import say
from fer_jax.errors import UserError


class _Camera(flags.IntegerParser):
  """A camera's number; the flag alone, which absl reads as "true", is 0."""

  def parse(self, argument: str | int) -> int:
    """Returns the number."""
    return super().parse(0 if argument == "true" else argument)


def define_flags() -> None:
  """Defines the command's flags."""
  model_flags.define_workdir()
  model_flags.define_tta()
  flags.DEFINE_bool("detect", True, "Takes each image as one face.")
  detector_flags.define()
  flags.DEFINE_integer(
    "batch_size", None, "Faces per batch; 64, camera 4.", lower_bound=1
  )
  flags.DEFINE_string("video", None, "A video file, or its URL (http, rtsp).")
  camera = flags.Flag(
    _Camera(lower_bound=0),
    None,
    "webcam",
    None,
    "Camera 0, or --webcam=N.",
    boolean=True,
  )
  flags.DEFINE_flag(camera)
  flags.DEFINE_integer("every", 1, "Predicts every Nth frame.")
  flags.DEFINE_float("fps", None, "Predicts so many frames per second.")
  flags.DEFINE_bool("json", False, "Prints one JSON object per image.")
  flags.DEFINE_string("csv", None, "CSV file to write, one line per face.")
  flags.DEFINE_string("annotate", None, "Folder for copies with boxes drawn.")


def main(argv: Sequence[str]) -> None:
  """Predicts as the flags say."""
  given = flags.FLAGS
  filmed = (given.video is not None) + (given.webcam is not None)
  if filmed + (len(argv) > 1) != 1:
    raise UserError(
      "give images or folders of images, or --video=FILE, or --webcam: exactly"
      " one of these"
    )
  if not filmed and (given.every != 1 or given.fps is not None):
    raise UserError(
      "--every and --fps are for --video and --webcam: leave them out"
    )
  model_flags.start()
  from fer_jax.inference import predict_images, video, video_io
  from fer_jax.inference.predictor import Predictor
  from fer_jax.object_stores import urls
  from fer_jax.pretrained import released

  # A camera's frames are predicted one by one.
  batch_size = given.batch_size or (4 if given.webcam is not None else 64)
  trained = released.load_model(given.workdir, given.checkpoint, batch_size)
  detector = detector_flags.create() if given.detect else None
  predictor = Predictor(trained, detector, tta=given.tta)
  options: dict[str, Any] = dict(
    detect=given.detect,
    as_json=given.json,
    csv=_output(given.csv, "csv"),
    annotate=_output(given.annotate, "annotate"),
  )
  if filmed:
    options["sampling"] = video.Sampling(given.every, given.fps)
  if given.webcam is not None:
    found = video.predict_camera(predictor, given.webcam, **options)
    say(str(found))
    return
  if given.video is not None:
    name = given.video
    if not video_io.is_url(name):
      name = urls.require_local(name, "video", is_input=True)
    found = video.predict_video(predictor, name, **options)
    say(str(found))
    return
  counts = predict_images.predict_files(predictor, argv[1:], **options)
  say(str(counts))
  if counts.unreadable:
    raise UserError(
      f"{counts.unreadable:,} of {counts.images:,} images could not be read"
    )
  if counts.not_drawn:
    raise UserError(f"{counts.not_drawn:,} images could not be drawn")


def _output(name: str | None, flag: str) -> Path | None:
  from fer_jax.object_stores import urls

  return None if name is None else urls.require_local(name, flag)


COMMAND = app.Command(
  "predict", __doc__, define_flags, main, takes_arguments=True
)

if __name__ == "__main__":
  COMMAND.run()
