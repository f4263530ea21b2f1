"""Small videos of any images."""

import numpy as np
import pytest

FRAMES, RATE = 20, 10


def write_video(
  path,
  images,
  codec="ffv1",
  pixels="bgr0",
  rate=RATE,
  turn=0,
  mirror=False,
  aspect=None,
  options=None,
):
  """Writes images as a video and returns its path."""
  av = pytest.importorskip("av", reason="the optional extra `video`")
  with av.open(str(path), "w", options=options or {}) as container:
    stream = container.add_stream(codec, rate=rate)
    stream.height, stream.width = images.shape[1:3]
    stream.pix_fmt = pixels
    if aspect:
      stream.codec_context.sample_aspect_ratio = aspect
    if turn or mirror:
      stream.set_display_rotation(turn, hflip=mirror)
    for image in images:
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image))
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path
