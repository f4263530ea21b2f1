"""Writes videos, with PyAV (the optional extra `video`)."""

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image

from fer_jax.errors import UserError
from fer_jax.inference.video_io import import_av, reason

# Ticks per second: the usual frame rates come out even, also 29.97, and MPEG-4
# allows no more than 65,535.
_TICKS = 60_000


class VideoWriter:
  """Writes a video, H.264 where FFmpeg was built with it; a context manager.

  All pictures have the size of the first, made even; no sound.

  Args:
    path: of the file, which is overwritten.
    rate: frames per second that players show; times are those of the pictures.

  Raises:
    UserError: it cannot be written.
  """

  def __init__(self, path: Path, rate: Fraction):
    av = import_av()
    self._last = -1
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      self._container = av.open(f"file:{path}", "w")
      codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
      self._stream = self._container.add_stream(
        codec, rate=rate.limit_denominator(1001)
      )
    except (av.FFmpegError, OSError) as e:
      raise self._unwritten(e) from e

  def write(self, picture: Image.Image, now: float) -> None:
    """Adds a picture that is shown `now` seconds after the start.

    Raises:
      UserError: the disk is full.
    """
    av, stream = import_av(), self._stream
    try:
      if self._last < 0:  # The encoder wants even sides.
        stream.width = picture.width + picture.width % 2
        stream.height = picture.height + picture.height % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, _TICKS)
      same = picture.crop((0, 0, stream.width, stream.height))
      frame = av.VideoFrame.from_ndarray(np.asarray(same), format="rgb24")
      self._last = max(round(now * _TICKS), self._last + 1)
      frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
      self._container.mux(stream.encode(frame))
    except (av.FFmpegError, OSError) as e:
      raise self._unwritten(e) from e

  def __enter__(self) -> Self:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    """Ends the file, so that it can be played even after an error."""
    try:
      if self._last >= 0:
        self._container.mux(self._stream.encode())
      self._container.close()
    except (import_av().FFmpegError, OSError) as e:
      if error is None:
        raise self._unwritten(e) from e

  def _unwritten(self, error: Exception) -> UserError:
    return UserError(
      f"cannot write the video: {reason(error)}; give another output or free"
      " space"
    )
