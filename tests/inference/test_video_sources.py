"""Videos from other places: URLs, streams, and files that are none."""

import functools
import http.server
import json
import threading

import numpy as np
import pytest
from video_files import FRAMES, write_video

from fer_jax.errors import UserError
from fer_jax.inference import video, video_io

pytestmark = pytest.mark.usefixtures("tiny_model")


def test_what_is_no_video_is_named(predictor, tmp_path, film):
  (tmp_path / "no.mp4").write_bytes(b"not a video" * 99)
  (tmp_path / "notes.txt").write_text("hello\n" * 99)
  (tmp_path / "empty.mp4").touch()
  write_video(tmp_path / "none.mkv", np.zeros((0, 48, 48, 3), np.uint8))
  names = {
    "no.mp4": "is no video that can be read: Invalid data",
    "notes.txt": "is no video that can be read: it has no pictures",
    "empty.mp4": "is no video that can be read",
    "none.mkv": "none.mkv",
    "missing.mp4": "missing.mp4 is no file",
    ".": "is no file",
  }
  for name, message in names.items():
    with pytest.raises(UserError, match=message) as e:
      video.predict_video(predictor, tmp_path / name)
    assert "\n" not in str(e.value)


@pytest.fixture
def served(tmp_path, monkeypatch):
  """The URL of the folder of the test."""
  monkeypatch.setenv("no_proxy", "127.0.0.1")
  handler = functools.partial(QuietHandler, directory=str(tmp_path))
  with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


def test_a_video_by_url_is_predicted(film, predictor, capsys, served):
  url = f"{served}/{film.name}"
  counts = video.predict_video(predictor, url, detect=False, as_json=True)
  with pytest.raises(UserError, match="is no video that can be read"):
    video.predict_video(predictor, url + ".none")
  assert counts.faces == FRAMES
  out = capsys.readouterr().out.splitlines()
  said = [json.loads(line) for line in out]
  assert {line["source"] for line in said} == {url}


def test_a_film_without_a_duration_is_not_live(frames, tmp_path, served):
  write_video(tmp_path / "film.gif", frames, "gif", "rgb8")
  with video_io.open_video(f"{served}/film.gif") as footage:
    assert not footage.is_live and len(list(footage)) == FRAMES


class QuietHandler(http.server.SimpleHTTPRequestHandler):
  """Serves files without a log."""

  def log_message(self, *args):
    """Says nothing."""


@pytest.mark.parametrize(
  ("name", "codec", "pixels"),
  [
    ("film.mkv", "ffv1", "bgr0"),
    ("film.avi", "mpeg4", "yuv420p"),
    ("film.mp4", "libx264", "yuv420p"),
  ],
)
def test_a_film_that_was_cut_off_is_named(
  predictor, tmp_path, capsys, name, codec, pixels
):
  noise = np.random.default_rng(0).integers(0, 256, (50, 48, 48, 3), np.uint8)
  options = {"movflags": "faststart"} if name == "film.mp4" else None
  film = write_video(tmp_path / name, noise, codec, pixels, options=options)
  assert video.predict_video(predictor, film, detect=False).frames == 50
  film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
  capsys.readouterr()
  with pytest.raises(UserError, match=r"left out.* ends after .* of 5\.0 s"):
    video.predict_video(predictor, film, detect=False)
  lines = capsys.readouterr().out.splitlines()
  assert 10 < len(lines) < 30


def test_a_live_stream_that_is_not_there_is_named(predictor):
  with pytest.raises(UserError, match="is no video that can be read"):
    video.predict_video(predictor, "rtsp://127.0.0.1:9/camera")


def test_a_playlist_leads_nowhere_else(film, predictor, tmp_path):
  playlist = tmp_path / "film.m3u8"
  playlist.write_text(
    "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n"
    "#EXT-X-ENDLIST\n"
  )
  with pytest.raises(UserError, match="is no video that can be read"):
    video.predict_video(predictor, playlist)
