"""What `fer_jax.predict` does with a video, or with what a camera sees."""

import contextlib
import dataclasses
import json
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from fer_jax.data.preparation_progress import say
from fer_jax.errors import UserError
from fer_jax.inference import predict_images, video_io
from fer_jax.inference.predictor import Crop, Prediction, Predictor
from fer_jax.inference.video_io import Footage, Frame, Writer


@dataclasses.dataclass
class Counts:
  """What became of the frames."""

  frames: int = 0
  seen: int = 0
  faces: int = 0
  without_face: int = 0
  seconds: float = 0.0

  def __str__(self) -> str:
    rate = self.seen / self.seconds if self.seconds else 0
    return (
      f"{self.faces:,} faces in {self.seen:,} of {self.frames:,} frames"
      f" ({rate:,.1f} frames/s), no face {self.without_face:,}"
    )


class Sampling(NamedTuple):
  """Which frames are looked at.

  Attributes:
    every: the first of so many.
    fps: so many a second, evenly, whatever the video's rate; instead of
      `every`. The video's own where that is lower.
  """

  every: int = 1
  fps: float | None = None

  def check(self) -> None:
    """Checks the two.

    Raises:
      UserError: both are given, or one is out of its range.
    """
    if self.every < 1:
      raise UserError(f"--every={self.every} must be 1 or more")
    if self.fps is not None and not self.fps > 0:
      raise UserError(f"--fps={self.fps} must be above 0")
    if self.fps is not None and self.every != 1:
      raise UserError(
        f"give --every={self.every} or --fps={self.fps:g}, not both"
      )

  def mark(self, video: Iterable[Frame]) -> Iterator[tuple[Frame, bool]]:
    """Yields the frames, and whether each is to be looked at."""
    last = -1
    for frame in video:
      if self.fps is None:
        yield frame, frame.number % self.every == 0
      else:
        # Containers round times, to milliseconds at worst.
        slot = int((frame.time + 6e-4) * self.fps)
        yield frame, slot > last
        last = max(slot, last)


EVERY_FRAME = Sampling()
_NO_CROP = np.empty((0, 0, 1), np.uint8)


def answer(
  predictor: Predictor,
  path: Path,
  *,
  sampling: Sampling = EVERY_FRAME,
  detect: bool = True,
  as_json: bool = False,
  annotate: Path | None = None,
) -> Counts:
  """Prints a line for each face of a video, as soon as its batch is full.

  Args:
    predictor: classifies.
    path: of the video.
    sampling: which frames to look at.
    detect: whether to look for faces; otherwise a frame is one.
    as_json: JSON, one object a line, instead of a table.
    annotate: a folder for a copy of the video with boxes and labels, which
      stay until the next frame that is looked at. The video is read once more
      for that, so no more than one of its frames is in memory.

  Returns:
    What became of the frames.

  Raises:
    UserError: it is no video, or parts of it cannot be read; then all others
      have their lines.
  """
  sampling.check()
  counts = Counts()
  asked: deque[Frame] = deque()  # Whose answers are to come, in order.
  drawn: dict[int, list[Prediction]] = defaultdict(list)

  def crops(footage: Footage) -> Iterator[Crop]:
    for frame, wanted in sampling.mark(_progress(footage, "looking")):
      counts.frames += 1
      if wanted:
        faces = predictor.crops(frame.pixels(), detect, str(path))
        counts.seen += 1
        counts.without_face += not faces
        asked.extend([frame._replace(raw=None)] * len(faces))
        yield from faces

  with video_io.open_file(path) as footage:
    _warm(predictor, detect)
    _print_head(as_json)
    started = time.monotonic()
    for found in predictor.classify(crops(footage)):
      counts.faces += 1
      frame = asked.popleft()
      _print(frame, found, as_json)
      if annotate:
        # Not the crop: a long video has many.
        drawn[frame.number].append(dataclasses.replace(found, crop=_NO_CROP))
  counts.seconds = time.monotonic() - started
  if annotate:
    _annotate(path, drawn, sampling, annotate)
  if footage.damage:
    say(str(counts))
    raise UserError(
      f"parts of {path} are left out, they cannot be read: {footage.damage}"
    )
  return counts


def watch(
  predictor: Predictor,
  camera: int = 0,
  *,
  sampling: Sampling = EVERY_FRAME,
  detect: bool = True,
  as_json: bool = False,
  annotate: Path | None = None,
) -> Counts:
  """Prints a line for each face that a camera sees, at once, until Ctrl-C.

  Frames that arrive while one is looked at are passed over, so what is printed
  is never about long ago.

  Args:
    predictor: classifies; a small batch size is the fastest.
    camera: 0 for the machine's first one.
    sampling: which frames to look at.
    detect: as for `answer`.
    as_json: as for `answer`.
    annotate: a folder for a video of what it sees, with boxes and labels.

  Returns:
    What became of the frames.

  Raises:
    UserError: there is no such camera, or it went away.
  """
  sampling.check()
  counts, busy_until = Counts(), 0.0
  shown: list[Prediction] = []
  with contextlib.ExitStack() as stack:
    footage = stack.enter_context(video_io.open_camera(camera))
    writer = None
    if annotate:
      name = annotate / f"webcam{camera}_annotated.mp4"
      writer = stack.enter_context(Writer(name, footage.rate))
    started = time.monotonic()
    try:
      _warm(predictor, detect)
      started = time.monotonic()
      _print_head(as_json)
      for frame, wanted in sampling.mark(footage):
        began = time.monotonic()
        counts.frames += 1
        pixels = None
        if wanted and frame.time >= busy_until:
          pixels = frame.pixels()
          faces = predictor.crops(pixels, detect, footage.name)
          shown = list(predictor.classify(faces))
          counts.seen += 1
          counts.faces += len(shown)
          counts.without_face += not shown
          for found in shown:
            _print(frame, found, as_json)
          busy_until = frame.time + time.monotonic() - began
        if writer:
          pixels = frame.pixels() if pixels is None else pixels
          writer.write(predict_images.annotated(pixels, shown), frame.time)
    except KeyboardInterrupt:
      pass
  counts.seconds = time.monotonic() - started
  if footage.damage:
    say(str(counts))
    raise UserError(f"{footage.name} went away: {footage.damage}")
  return counts


def _warm(predictor: Predictor, detect: bool) -> None:
  """Loads and compiles what is needed, before frames queue up or count."""
  blank = np.zeros((48, 48, 3), np.uint8)
  predictor.crops(blank, detect)
  list(predictor.classify(predictor.crops(blank, detect=False)))


def _progress(footage: Footage, what: str) -> Iterable[Frame]:
  """Shows how far a video is, on a terminal only, and clears it after."""
  return tqdm(
    footage,
    desc=what,
    total=footage.num_frames or None,
    unit=" frames",
    leave=False,
    disable=None,
  )


def _print_head(as_json: bool) -> None:
  if not as_json:
    print(predict_images.head(f"{'time':>10}  {'frame':>8}"), flush=True)


def _print(frame: Frame, found: Prediction, as_json: bool) -> None:
  if as_json:
    when = {"time": round(frame.time, 3), "frame": frame.number}
    line = json.dumps(found.to_json() | when)
  else:
    line = predict_images.row(f"{frame.time:10.3f}  {frame.number:8}", found)
  with tqdm.external_write_mode():  # Not into the bar.
    print(line, flush=True)


def _annotate(
  path: Path,
  drawn: dict[int, list[Prediction]],
  sampling: Sampling,
  folder: Path,
) -> None:
  """Writes a copy of a video, boxes and labels on it."""
  shown: list[Prediction] = []
  with (
    video_io.open_file(path) as footage,
    Writer(folder / f"{path.stem}_annotated.mp4", footage.rate) as writer,
  ):
    for frame, wanted in sampling.mark(_progress(footage, "drawing")):
      if wanted:
        shown = drawn.get(frame.number, [])
      writer.write(predict_images.annotated(frame.pixels(), shown), frame.time)
