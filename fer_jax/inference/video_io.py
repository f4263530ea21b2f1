"""Frames of videos, streams and cameras.

PyAV reads them, the optional extra `video`: FFmpeg's decoders, with the time of
each frame, and nothing else to install.
"""

import importlib
import sys
import time
import urllib.parse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fer_jax.errors import UserError
from fer_jax.inference.video_frames import Frame
from fer_jax.text_output import printable

# What the optional extra `video` installs.
_PACKAGE = "av"

_WEB, _LIVE = ("http", "https"), ("rtsp", "rtsps", "rtmp", "rtmps")
# What is live over http, if the header has no duration: cameras that send JPEGs
# and playlists without an end. The header of a whole film may have none, too.
_LIVE_FORMATS = ("mpjpeg", "mjpeg", "hls")
_TIMEOUT_SECONDS = 20.0  # to open, and for each read

# Formats whose headers know how long all is; those of others are estimates.
_KNOWN_LENGTH = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi")
# By so much, and two frames, headers of whole files may be wrong.
_TOLERANCE_SECONDS = 0.5

# What FFmpeg calls a system's cameras. Those of macOS give 30 frames per
# second or none.
_CAMERAS: dict[str, tuple[str, dict[str, str]]] = {
  "linux": ("v4l2", {}),
  "darwin": ("avfoundation", {"framerate": "30"}),
  "win32": ("dshow", {}),
}


class Footage:
  """An open video, stream or camera; iterating yields its frames, once.

  Attributes:
    name: what to call it.
    rate: frames per second by its header.
    num_frames: by its header; 0 where that does not say.
    damage: why parts were left out; "" if none were.
    is_live: whether it goes on while it is read.
  """

  def __init__(self, container: Any, name: str, is_live: bool = False):
    self.name = name
    self.damage = ""
    self.is_live = is_live
    self._container = container
    self._stream = container.streams.video[0]
    self._stream.thread_type = "AUTO"
    self._end = 0.0  # of what was read, in seconds
    self._is_cut = False  # inside of a packet
    rate = self._stream.average_rate or Fraction(30)
    # Of PyAV 19 it is a fraction of its own kind.
    self.rate = Fraction(rate.numerator, rate.denominator)
    self.num_frames: int = self._stream.frames
    ratio = self._stream.sample_aspect_ratio or Fraction(1)
    aspect = ratio.numerator / ratio.denominator
    # Of DVDs it is 0.9 to 1.5; a damaged header may say anything.
    self._aspect = aspect if 1 / 4 <= aspect <= 4 else 1.0

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
      yield Frame(number, now, raw, self._aspect)
      number += 1
    self.damage = self.damage or self._missing()
    if not number:
      raise UserError(
        f"{self.name} has no frames that can be read:"
        f" {self.damage or 'it is empty'}; give another"
      )

  def _decoded(self) -> Iterator[Any]:
    """Yields all frames that can be decoded."""
    for packet in self._packets():
      try:
        yield from packet.decode()
      except import_av().FFmpegError as e:
        self.damage = reason(e)

  def _packets(self) -> Iterator[Any]:
    while True:
      try:
        # Sound may be longer than the pictures.
        for packet in self._container.demux():
          self._note(packet)
          if packet.stream.index == self._stream.index:
            yield packet
        return
      except BlockingIOError:  # A camera of macOS has no new frame yet.
        time.sleep(0.005)
      except import_av().FFmpegError as e:
        self.damage = reason(e)
        return

  def _note(self, packet: Any) -> None:
    """Notes how far the file was read."""
    self._is_cut |= packet.is_corrupt
    if packet.pts is not None:
      end = packet.pts + (packet.duration or 0)
      self._end = max(self._end, float(end * packet.time_base))

  def _missing(self) -> str:
    """Returns what the header says that there is besides what was read.

    FFmpeg ends a file that was cut off as it ends a whole one, and frames that
    are decoded by several threads then lack without an error.
    """
    container = self._container
    if self.is_live or container.format.name not in _KNOWN_LENGTH:
      return ""
    length = (container.duration or 0) / 1e6
    if container.format.name == "avi":  # FFmpeg's is what a cut file may hold.
      length = max(length, float(self.num_frames / self.rate))
    start = min(0.0, (container.start_time or 0) / 1e6)
    if length - (self._end - start) > _TOLERANCE_SECONDS + 2 / self.rate:
      return f"it ends after {self._end - start:.1f} of {length:.1f} s"
    return "it ends in the middle of a frame" if self._is_cut else ""


def is_url(video: str | Path) -> bool:
  """Returns whether a video is read from the network.

  >>> is_url("rtsp://camera/1"), is_url("film.mp4")
  (True, False)
  """
  return _scheme(video) in _WEB + _LIVE


def stem(video: str | Path) -> str:
  """Returns a video's name without suffix.

  >>> stem("https://example.org/a/film.mp4?x=1"), stem(Path("a/film.mp4"))
  ('film', 'film')
  """
  path = urllib.parse.urlsplit(str(video)).path if is_url(video) else video
  return Path(path).stem or "video"


def open_video(video: str | Path) -> Footage:
  """Opens a video.

  Args:
    video: a file, or a URL (http, https, rtsp, rtsps, rtmp).

  Raises:
    UserError: there is no such file, it is no video, or PyAV is missing.
  """
  name = printable(video)
  options = {}
  if is_url(video):
    # With TCP, no part of a frame is lost.
    options["rtsp_transport"] = "tcp"
    address = str(video)
  else:
    if not Path(video).is_file():
      raise UserError(f"video={name} is no file: give a video or its URL")
    # With its protocol, a name such as "http:x" is a file's too. A playlist
    # must not lead to other places.
    address = f"file:{video}"
    options["protocol_whitelist"] = "file"
  started = time.monotonic()
  try:
    container = import_av().open(
      address, options=options, timeout=_TIMEOUT_SECONDS
    )
  except import_av().FFmpegError as e:
    # FFmpeg calls what RTSP servers do not send invalid.
    is_late = time.monotonic() - started >= _TIMEOUT_SECONDS
    raise _no_video(name, _silence() if is_late else reason(e)) from e
  # FFmpeg plays text as well, as a terminal would.
  if not container.streams.video or container.format.name == "tty":
    container.close()
    raise _no_video(name, "it has no pictures")
  is_live = _scheme(video) in _LIVE or (
    is_url(video)
    and container.duration is None
    and container.format.name in _LIVE_FORMATS
  )
  return Footage(container, str(video), is_live)


def _scheme(video: str | Path) -> str:
  scheme, separator, _ = str(video).partition("://")
  return scheme.lower() if separator and isinstance(video, str) else ""


def open_camera(number: int) -> Footage:
  """Opens a camera of this machine, 0 for the first one.

  Raises:
    UserError: there is none, it is in use, or PyAV is missing.
  """
  av = import_av()
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
      f"cannot open webcam={number}: {reason(e)}; connect it, close what"
      " else uses it, or give another number"
    ) from e
  return Footage(container, f"webcam {number}", is_live=True)


def reason(error: Exception) -> str:
  """Returns what went wrong, without the number and the file's name."""
  if isinstance(error, import_av().error.ExitError):  # PyAV's time limit
    return _silence()
  said = getattr(error, "strerror", None) or str(error) or type(error).__name__
  return " ".join(said.split())


def _silence() -> str:
  return f"nothing arrived for {_TIMEOUT_SECONDS:g} s"


def _no_video(name: str, why: str) -> UserError:
  return UserError(
    f"video={name} is no video that can be read: {why}; give another"
  )


def import_av() -> Any:
  """Returns PyAV.

  Raises:
    UserError: it is not installed.
  """
  try:
    return importlib.import_module("av")
  except ImportError as e:
    raise UserError(
      f"videos and cameras need one more package: pip install {_PACKAGE}"
    ) from e
