"""Predictions for videos, streams and cameras."""

import contextlib
import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fer_jax.console import say
from fer_jax.errors import Interrupted, UserError
from fer_jax.inference import drawing, video_io
from fer_jax.inference.prediction import ImageResult, Prediction
from fer_jax.inference.prediction_stream import NamedImage
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.result_writers import WriteResult, result_writer
from fer_jax.inference.video_frames import Frame
from fer_jax.inference.video_io import Footage
from fer_jax.inference.video_sampling import EVERY_FRAME, Sampling, VideoCounts
from fer_jax.inference.video_writer import VideoWriter
from fer_jax.output_folder import OutputFolder

_NO_CROP = np.empty((0, 0, 1), np.uint8)


def predict_video(
  predictor: Predictor,
  video: str | Path,
  *,
  sampling: Sampling = EVERY_FRAME,
  detect: bool = True,
  as_json: bool = False,
  csv: Path | None = None,
  annotate: Path | None = None,
  num_workers: int = 0,
) -> VideoCounts:
  """Prints a line for every frame and face, as soon as its batch is full.

  Args:
    predictor: classifies.
    video: a file, or a URL (http, https) of one; live streams (rtsp, rtmp, and
      by http cameras that send JPEGs and HLS) are watched as `predict_camera`
      does.
    sampling: frames in which faces are looked for.
    detect: whether to look for faces; otherwise a frame is one.
    as_json: print JSON Lines, one object per frame, instead of a table.
    csv: a CSV file to write too.
    annotate: a folder for a copy of the video with boxes and labels, which
      stay until the next frame that is looked at. The video is read again for
      that, so that only a few frames are in memory.
    num_workers: threads that look for faces; 0 is one per core.

  Returns:
    Numbers of frames and faces.

  Raises:
    UserError: it is no video, or parts of it cannot be read; then all others
      have their lines.
  """
  sampling.check()
  footage = video_io.open_video(video)
  if footage.is_live:
    return _watch(
      predictor,
      footage,
      "stream_annotated.mp4",
      sampling=sampling,
      detect=detect,
      as_json=as_json,
      csv=csv,
      annotate=annotate,
    )
  counts = VideoCounts()
  drawn: dict[int, list[Prediction]] = {}
  inputs = [] if video_io.is_url(video) else [Path(video)]
  name = f"{video_io.stem(video)}_annotated.mp4"

  def frames(footage: Footage) -> Iterator[NamedImage]:
    for frame, wanted in sampling.mark(_progress(footage, "predicting")):
      counts.frames += 1
      if wanted:
        pixels = frame.pixels()
        yield NamedImage(str(video), pixels, None, frame.number, frame.time)

  with contextlib.ExitStack() as stack:
    stack.enter_context(footage)
    output = OutputFolder(annotate, inputs) if annotate else None
    if output:  # Checked before anything is predicted.
      output.paths_for({str(video): name})
    write = stack.enter_context(
      _writer(predictor, as_json=as_json, csv=csv, inputs=inputs)
    )
    _warm_up(predictor, detect)
    started = time.monotonic()
    for result in predictor.stream(
      frames(footage), detect, num_workers=num_workers
    ):
      counts.add(result)
      write(result)
      if output and result.frame is not None:
        drawn[result.frame] = _without_crops(result.faces)
  counts.seconds = time.monotonic() - started
  if output:
    _annotate(video, drawn, sampling, output, name, predictor.class_names)
  if footage.damage:
    say(str(counts))
    raise UserError(
      f"parts of {video} are left out, they cannot be read: {footage.damage}"
    )
  return counts


def predict_camera(
  predictor: Predictor,
  camera: int = 0,
  *,
  sampling: Sampling = EVERY_FRAME,
  detect: bool = True,
  as_json: bool = False,
  csv: Path | None = None,
  annotate: Path | None = None,
) -> VideoCounts:
  """Prints a line for every frame of a camera, at once, until Ctrl-C.

  Frames that arrive while another is predicted are dropped, so that what is
  printed is never about long ago.

  Args:
    predictor: classifies; a small batch size is the fastest.
    camera: 0 for the machine's first one.
    sampling: frames in which faces are looked for.
    detect: as for `predict_video`.
    as_json: as for `predict_video`.
    csv: as for `predict_video`.
    annotate: a folder for a video of what it sees, with boxes and labels.

  Returns:
    Numbers of frames and faces.

  Raises:
    UserError: there is no such camera, or it was disconnected.
    Interrupted: SIGTERM or SIGHUP ended the command; all is written.
  """
  sampling.check()
  return _watch(
    predictor,
    video_io.open_camera(camera),
    f"webcam{camera}_annotated.mp4",
    sampling=sampling,
    detect=detect,
    as_json=as_json,
    csv=csv,
    annotate=annotate,
  )


def _watch(
  predictor: Predictor,
  footage: Footage,
  name: str,
  *,
  sampling: Sampling,
  detect: bool,
  as_json: bool,
  csv: Path | None,
  annotate: Path | None,
) -> VideoCounts:
  """Predicts frames at once, drops those that arrive meanwhile; closes it."""
  counts, busy_until, interrupted = VideoCounts(), 0.0, None
  shown: list[Prediction] = []
  with contextlib.ExitStack() as stack:
    stack.enter_context(footage)
    output = OutputFolder(annotate) if annotate else None
    if output:  # What was recorded earlier cannot be recorded again.
      name = output.unused(name)
    video = None
    write = stack.enter_context(_writer(predictor, as_json=as_json, csv=csv))
    started = time.monotonic()
    try:
      _warm_up(predictor, detect)
      started = time.monotonic()
      for frame, wanted in sampling.mark(footage):
        began = time.monotonic()
        counts.frames += 1
        pixels = None
        if wanted and frame.time >= busy_until:
          pixels = frame.pixels()
          crops = predictor.crops(pixels, detect, footage.name)
          shown = predictor.classify(crops)
          result = ImageResult(
            footage.name, shown, "", frame.number, frame.time
          )
          counts.add(result)
          write(result)
          busy_until = frame.time + time.monotonic() - began
        if output:
          pixels = frame.pixels() if pixels is None else pixels
          picture = drawing.annotated(pixels, shown, predictor.class_names)
          if not video:  # Without a frame, there is no video to write.
            path = stack.enter_context(output.write(name))
            video = stack.enter_context(VideoWriter(path, footage.rate))
          video.write(picture, frame.time)
    except Interrupted as e:
      interrupted = e  # Raised once the outputs are complete.
    except KeyboardInterrupt:
      pass
  counts.seconds = time.monotonic() - started
  if interrupted:
    say(str(counts))
    raise interrupted
  if footage.damage:
    say(str(counts))
    raise UserError(f"{footage.name} was disconnected: {footage.damage}")
  return counts


def _writer(
  predictor: Predictor,
  *,
  as_json: bool,
  csv: Path | None,
  inputs: Iterable[Path] = (),
) -> contextlib.AbstractContextManager[WriteResult]:
  return result_writer(
    predictor.class_names,
    as_json=as_json,
    csv=csv,
    inputs=inputs,
    is_video=True,
  )


def _without_crops(faces: list[Prediction]) -> list[Prediction]:
  """Returns predictions that take little memory: a long video has many."""
  return [dataclasses.replace(face, crop=_NO_CROP) for face in faces]


def _warm_up(predictor: Predictor, detect: bool) -> None:
  """Loads and compiles what is needed, before frames queue up or count."""
  blank = np.zeros((48, 48, 3), np.uint8)
  predictor.crops(blank, detect)
  predictor.classify(predictor.crops(blank, detect=False))


def _progress(footage: Footage, what: str) -> Iterable[Frame]:
  """Shows a progress bar, on a terminal only, and clears it at the end."""
  return tqdm(
    footage,
    desc=what,
    total=footage.num_frames or None,
    unit=" frames",
    leave=False,
    disable=None,
  )


def _annotate(
  video: str | Path,
  drawn: dict[int, list[Prediction]],
  sampling: Sampling,
  output: OutputFolder,
  name: str,
  class_names: tuple[str, ...],
) -> None:
  """Writes a copy of a video with boxes and labels."""
  shown: list[Prediction] = []
  with (
    video_io.open_video(video) as footage,
    output.write(name) as path,
    VideoWriter(path, footage.rate) as writer,
  ):
    for frame, wanted in sampling.mark(_progress(footage, "drawing")):
      if wanted:
        shown = drawn.get(frame.number, [])
      picture = drawing.annotated(frame.pixels(), shown, class_names)
      writer.write(picture, frame.time)
