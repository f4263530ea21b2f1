"""Live streams: cameras that send JPEGs over http, and RTSP."""

import contextlib
import http.server
import io
import json
import shutil
import socket
import subprocess
import threading

import numpy as np
import pytest
import trained_run
from PIL import Image
from video_files import FRAMES, write_video

from fer_jax.errors import UserError
from fer_jax.inference import video, video_io
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.trained_model import TrainedModel

pytestmark = pytest.mark.usefixtures("tiny_model")

# Run by the system's Python, which has GStreamer's bindings: serves a film, of
# which only so many packets pass if a number follows.
RTSP_SERVER = """
import sys
import gi
gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer

Gst.init(None)
server = GstRtspServer.RTSPServer(address="127.0.0.1", service="0")
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(
  f"( filesrc location={sys.argv[1]} ! matroskademux ! jpegparse"
  " ! rtpjpegpay name=pay0 )"
)

def configure(factory, media):
  passed = []
  def probe(pad, info):
    passed.append(info)
    passes = len(passed) <= int(sys.argv[2])
    return Gst.PadProbeReturn.OK if passes else Gst.PadProbeReturn.DROP
  pad = media.get_element().get_by_name("pay0").get_static_pad("sink")
  kinds = Gst.PadProbeType.BUFFER | Gst.PadProbeType.EVENT_DOWNSTREAM
  pad.add_probe(kinds, probe)

if len(sys.argv) > 2:
  factory.connect("media-configure", configure)
server.get_mount_points().add_factory("/film", factory)
server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""
PYTHON = "/usr/bin/python3"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
  monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def predictor():
  trained = TrainedModel.load(trained_run.workdir(), batch_size=4)
  return Predictor(trained)


def watch(predictor, url, capsys):
  """Returns the error of a stream, and the lines it printed."""
  with pytest.raises(UserError) as e:
    video.predict_video(predictor, url, detect=False, as_json=True)
  assert "\n" not in str(e.value)
  lines = capsys.readouterr().out.splitlines()
  return str(e.value), [json.loads(line) for line in lines]


class Camera(http.server.BaseHTTPRequestHandler):
  """Sends JPEGs until it is disconnected, as web cameras do."""

  def do_GET(self):
    """Sends one JPEG after the other."""
    self.send_response(200)
    kind = "multipart/x-mixed-replace; boundary=next"
    self.send_header("Content-Type", kind)
    self.end_headers()
    for i in range(FRAMES):
      jpeg = io.BytesIO()
      Image.new("RGB", (64, 64), (i * 9, 99, 99)).save(jpeg, "JPEG")
      size = b"Content-Length: %d\r\n\r\n" % len(jpeg.getvalue())
      head = b"--next\r\nContent-Type: image/jpeg\r\n" + size
      self.wfile.write(head + jpeg.getvalue() + b"\r\n")

  def log_message(self, *args):
    """Says nothing."""


def test_a_camera_that_sends_jpegs_is_watched(predictor, capsys, tmp_path):
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
      url = f"http://127.0.0.1:{server.server_port}/video"
      error, lines = watch(predictor, url, capsys)
    finally:
      server.shutdown()
      thread.join()
  assert error.startswith(f"{url} was disconnected")
  assert {line["source"] for line in lines} == {url}
  numbers = [line["frame"] for line in lines]
  assert numbers == sorted(numbers) and 1 <= len(numbers) <= FRAMES


def test_a_server_that_says_nothing_is_given_up(predictor, monkeypatch):
  monkeypatch.setattr(video_io, "_TIMEOUT_SECONDS", 0.5)
  with socket.create_server(("127.0.0.1", 0)) as server:
    url = f"rtsp://127.0.0.1:{server.getsockname()[1]}/film"
    with pytest.raises(UserError, match=r"nothing arrived for 0\.5 s"):
      video.predict_video(predictor, url)


@contextlib.contextmanager
def rtsp(path, *args):
  """Yields the URL of a film that is served; skips where no server is."""
  command = [PYTHON, "-c", RTSP_SERVER, str(path), *args]
  if not shutil.which(PYTHON):
    pytest.skip("no system Python to run an RTSP server")
  with subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
  ) as server:
    try:
      assert server.stdout is not None
      port = server.stdout.readline().strip()
      if not port:
        pytest.skip("GStreamer's RTSP server is not installed")
      yield f"rtsp://127.0.0.1:{port}/film"
    finally:
      server.kill()


@pytest.fixture
def jpegs(tmp_path):
  images = np.random.default_rng(0).integers(0, 256, (30, 64, 64, 3), np.uint8)
  return write_video(tmp_path / "film.mkv", images, "mjpeg", "yuvj420p")


def test_an_rtsp_stream_is_watched_to_its_end(predictor, jpegs, tmp_path):
  with rtsp(jpegs) as url:
    table = tmp_path / "faces.csv"
    counts = video.predict_video(predictor, url, detect=False, csv=table)
    with pytest.raises(UserError, match="404 Not Found"):
      video.predict_video(predictor, url + "/none")
  assert counts.frames >= 25 and 1 <= counts.faces <= counts.frames
  assert len(table.read_text().splitlines()) == counts.faces + 1


def test_an_rtsp_stream_that_stalls_is_given_up(
  predictor, jpegs, capsys, monkeypatch
):
  monkeypatch.setattr(video_io, "_TIMEOUT_SECONDS", 3.0)
  with rtsp(jpegs, "20") as url:
    error, lines = watch(predictor, url, capsys)
  assert error == f"{url} was disconnected: nothing arrived for 3 s"
  assert lines
