"""Which frames of a video are looked at, and the count of what was found."""

import dataclasses
import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fer_jax.errors import UserError
from fer_jax.inference.prediction import ImageResult
from fer_jax.inference.video_frames import Frame
from fer_jax.text_output import counted


@dataclasses.dataclass
class VideoCounts:
  """Numbers of frames and faces.

  Attributes:
    frames: frames of the video.
    seen: frames in which faces were looked for.
    faces: faces found in them.
    without_face: frames in which no face was found.
    seconds: time for all frames.
  """

  frames: int = 0
  seen: int = 0
  faces: int = 0
  without_face: int = 0
  seconds: float = 0.0

  def __str__(self) -> str:
    rate = self.seen / self.seconds if self.seconds else 0
    return (
      f"{counted(self.faces, 'face')} in {self.seen:,} of"
      f" {counted(self.frames, 'frame')}"
      f" ({rate:,.1f} frames/s), no face {self.without_face:,}"
    )

  def add(self, result: ImageResult) -> None:
    """Counts a frame that was looked at."""
    self.seen += 1
    self.faces += len(result.faces)
    self.without_face += not result.faces


class Sampling(NamedTuple):
  """The frames of a video in which faces are looked for.

  Attributes:
    every: one of so many frames, the first.
    fps: frames per second of the video, evenly spaced; instead of `every`. All
      frames where the video's own rate is lower.
  """

  every: int = 1
  fps: float | None = None

  def check(self) -> None:
    """Checks both.

    Raises:
      UserError: both are given, or one is out of its range.
    """
    if self.every < 1:
      raise UserError(f"every={self.every} must be 1 or more")
    if self.fps is not None and not 0 < self.fps < math.inf:
      raise UserError(f"fps={self.fps} must be above 0 and finite")
    if self.fps is not None and self.every != 1:
      raise UserError(f"give every={self.every} or fps={self.fps:g}, not both")

  def mark(self, video: Iterable[Frame]) -> Iterator[tuple[Frame, bool]]:
    """Yields the frames, and whether faces are looked for in each."""
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
