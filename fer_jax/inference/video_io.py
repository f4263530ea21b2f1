"""Pictures of videos and cameras: read, and written again.

PyAV does it, the optional extra `video`: FFmpeg's decoders and encoders, with
the time of each frame, and nothing else to install.
"""

import importlib
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fer_jax.errors import UserError

# What the optional extra `video` installs.
_PACKAGE = "av"

# What FFmpeg calls a system's cameras. macOS' give 30 frames a second or none.
_CAMERAS: dict[str, tuple[str, dict[str, str]]] = {
  "linux": ("v4l2", {}),
  "darwin": ("avfoundation", {"framerate": "30"}),
  "win32": ("dshow", {}),
}

# Ticks a second of what is written: the usual frame rates come out even, also
# 29.97, and MPEG-4 allows no more than 65,535.
_TICKS = 60_000


class Frame(NamedTuple):
  """One picture of a video.

  Attributes:
    number: of the frames before it.
    time: seconds after the first one.
    raw: as the decoder gives it; most frames are not needed as pixels.
  """

  number: int
  time: float
  raw: Any

  def pixels(self) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the frame in colour, upright as a player shows it."""
    quarters = round(self.raw.rotation / 90) % 4
    return np.rot90(self.raw.to_ndarray(format="rgb24"), quarters)


class Footage:
  """A video or camera that is open; iterating gives its frames, once.

  Attributes:
    name: what to call it.
    rate: frames a second, as it says of itself.
    num_frames: likewise; 0 where it does not say.
    damage: what was wrong with parts that were left out; "" if nothing was.
  """

  def __init__(self, container: Any, name: str):
    self.name = name
    self.damage = ""
    self._container = container
    self._stream = container.streams.video[0]
    self._stream.thread_type = "AUTO"
    rate = self._stream.average_rate or Fraction(30)
    # Of PyAV 19 it is a fraction of its own kind.
    self.rate = Fraction(rate.numerator, rate.denominator)
    self.num_frames: int = self._stream.frames

  def __enter__(self) -> Self:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self._container.close()

  def __iter__(self) -> Iterator[Frame]:
    """Yields the frames.

    Raises:
      UserError: there are none.
    """
    first, number = None, 0
    for raw in self._decoded():
      if raw.time is None:
        now = number / float(self.rate)
      else:
        first = raw.time if first is None else first
        now = raw.time - first
      yield Frame(number, now, raw)
      number += 1
    if not number:
      raise UserError(
        f"{self.name} has no frames that can be read:"
        f" {self.damage or 'it is empty'}; give another"
      )

  def _decoded(self) -> Iterator[Any]:
    """Yields what can be decoded, before and behind what cannot."""
    for packet in self._packets():
      try:
        yield from packet.decode()
      except _av().FFmpegError as e:
        self.damage = reason(e)

  def _packets(self) -> Iterator[Any]:
    while True:
      try:
        yield from self._container.demux(self._stream)
        return
      except BlockingIOError:  # A camera of macOS has no new frame yet.
        time.sleep(0.005)
      except _av().FFmpegError as e:
        self.damage = reason(e)
        return


def open_file(path: Path) -> Footage:
  """Opens a video.

  Raises:
    UserError: there is no such file, it is no video, or PyAV is missing.
  """
  if not path.is_file():
    raise UserError(f"--video={path} is no file: give a video")
  try:
    # With its protocol, a name such as "http:x" is a file's too.
    container = _av().open(f"file:{path}")
  except _av().FFmpegError as e:
    raise _no_video(path, reason(e)) from e
  # FFmpeg plays text as well, as a terminal would.
  if not container.streams.video or container.format.name == "tty":
    container.close()
    raise _no_video(path, "it has no pictures")
  return Footage(container, str(path))


def open_camera(number: int) -> Footage:
  """Opens a camera of this machine, 0 for the first one.

  Raises:
    UserError: there is none, it is in use, or PyAV is missing.
  """
  av = _av()
  system, options = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
  try:
    if system == "v4l2":
      device = f"/dev/video{number}"
    elif system == "avfoundation":
      device = str(number)
    else:
      cameras = [
        camera.name
        for camera in av.enumerate_input_devices(system)
        if "video" in camera.media_types
      ]
      device = f"video={cameras[number]}"
    container = av.open(device, format=system, options=options)
  except (av.FFmpegError, IndexError) as e:
    raise UserError(
      f"cannot open --webcam={number}: {reason(e)}; connect it, close what"
      " else uses it, or give another number"
    ) from e
  return Footage(container, f"webcam {number}")


class Writer:
  """Writes a video, H.264 where FFmpeg was built with it; a context manager.

  All pictures have the size of the first, made even; no sound.

  Args:
    path: of the file; what is there is overwritten.
    rate: frames a second, on which nothing but the player's notice depends.

  Raises:
    UserError: it cannot be written.
  """

  def __init__(self, path: Path, rate: Fraction):
    av = _av()
    self._path, self._last = path, -1
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
    av, stream = _av(), self._stream
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
    """Ends the file, so that it can be played, whatever came between."""
    try:
      if self._last >= 0:
        self._container.mux(self._stream.encode())
      self._container.close()
    except (_av().FFmpegError, OSError) as e:
      if error is None:
        raise self._unwritten(e) from e

  def _unwritten(self, error: Exception) -> UserError:
    return UserError(
      f"cannot write {self._path}: {reason(error)}; give another --annotate=DIR"
    )


def reason(error: Exception) -> str:
  """Returns what went wrong, without the number and the file's name."""
  said = getattr(error, "strerror", None) or str(error) or type(error).__name__
  return " ".join(said.split())


def _no_video(path: Path, why: str) -> UserError:
  return UserError(
    f"--video={path} is no video that can be read: {why}; give another"
  )


def _av() -> Any:
  try:
    return importlib.import_module("av")
  except ImportError as e:
    raise UserError(
      f"videos and cameras need one more package: pip install {_PACKAGE}"
    ) from e
