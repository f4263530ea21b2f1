"""Videos and cameras: real files, decoded; a file stands in for the camera."""

import itertools
import json
import sys
from fractions import Fraction

import numpy as np
import pytest
from video_files import FRAMES, RATE, write_video

from fer_jax.errors import Interrupted, UserError
from fer_jax.faces.face import Face
from fer_jax.inference import drawing, video, video_io
from fer_jax.inference.predictor import Predictor
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.inference.video import Sampling

av = pytest.importorskip("av", reason="the optional extra `video`")

pytestmark = pytest.mark.usefixtures("tiny_model")


def left_half(image):
  h, w, _ = image.shape
  return [Face((0, 0, w / 2, h), None, None, 0.9)]


@pytest.fixture
def detector():
  return left_half


def lines(capsys):
  return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_frame_is_answered_as_its_image_is(frames, film, predictor, capsys):
  counts = video.predict_video(predictor, film, detect=False, as_json=True)
  expected = predictor.predict(list(frames), detect=False)
  said = lines(capsys)
  assert [line["frame"] for line in said] == list(range(FRAMES))
  assert [line["time"] for line in said] == [n / RATE for n in range(FRAMES)]
  assert len({line["faces"][0]["label"] for line in said}) > 1
  for line, found in zip(said, expected, strict=True):
    assert line["source"] == str(film)
    (face,) = line["faces"]
    assert face["label"] == found.label
    assert face["probabilities"] == pytest.approx(found.probabilities, 1e-6)
  assert (counts.frames, counts.seen, counts.faces) == (FRAMES, FRAMES, FRAMES)
  assert set(said[0]) == {"source", "time", "frame", "faces"}


def test_batches_span_frames(film, predictor, monkeypatch, capsys):
  sizes = []
  probabilities = TrainedModel.probabilities

  def noted(self, images, *args):
    sizes.append(len(images))
    return probabilities(self, images, *args)

  monkeypatch.setattr(TrainedModel, "probabilities", noted)
  counts = video.predict_video(predictor, film, sampling=Sampling(every=2))
  assert sizes == [1, 8, 2]  # The first compiles, before the clock starts.
  assert str(counts).startswith("10 faces in 10 of 20 frames (")
  head, first, second = capsys.readouterr().out.splitlines()[:3]
  assert head.split() == "time frame box expression probability".split()
  assert first.split()[:6] == ["0.000", "0", "0", "0", "24", "48"]
  assert second.split()[:2] == ["0.200", "2"]


def test_frames_without_faces_are_counted(film, predictor, capsys):
  nobody = Predictor(predictor.trained, detector=lambda image: [])
  counts = video.predict_video(nobody, film, as_json=True)
  assert (counts.faces, counts.without_face) == (0, FRAMES)
  assert [line["faces"] for line in lines(capsys)] == [[]] * FRAMES
  video.predict_video(nobody, film)
  table = capsys.readouterr().out.splitlines()[1:]
  assert [line.split()[1] for line in table] == [str(n) for n in range(FRAMES)]
  assert all("no face" in line for line in table)


@pytest.mark.parametrize(
  ("sampling", "expected"),
  [
    (Sampling(every=7), [0, 7, 14]),
    (Sampling(fps=5), list(range(0, FRAMES, 2))),
    (Sampling(fps=4), [0, 3, 5, 8, 10, 13, 15, 18]),
    (Sampling(fps=0.6), [0, 17]),
    (Sampling(fps=100), list(range(FRAMES))),
  ],
)
def test_sampling_takes_these_frames(film, sampling, expected):
  with video_io.open_video(film) as footage:
    marked = list(sampling.mark(footage))
  assert [frame.number for frame, wanted in marked if wanted] == expected
  assert len(marked) == FRAMES


@pytest.mark.parametrize(
  "sampling",
  [
    Sampling(0),
    Sampling(2, 5.0),
    *(Sampling(1, fps) for fps in (0.0, -1, np.inf, np.nan)),
  ],
)
def test_sampling_out_of_range_is_named(sampling):
  with pytest.raises(UserError, match="(every|fps)="):
    sampling.check()


def decoded(path):
  with video_io.open_video(path) as footage:
    read = [(frame.time, frame.pixels()) for frame in footage]
  return [time for time, _ in read], [pixels for _, pixels in read]


def test_the_annotated_video_is_as_long_and_holds_its_boxes(
  frames, film, predictor, tmp_path, monkeypatch
):
  def bright(image):
    return left_half(image) if image[0, 0, 0] < 128 else []

  drawn = []
  annotated = drawing.annotated

  def noted(image, predictions, class_names):
    drawn.append(len(predictions))
    return annotated(image, predictions, class_names)

  monkeypatch.setattr(drawing, "annotated", noted)
  frames[5:10, 0, 0] = 255
  frames[[*range(5), *range(10, 20)], 0, 0] = 0
  film = write_video(tmp_path / "odd.mkv", frames[:, :47, :45])
  finder = Predictor(predictor.trained, detector=bright)
  video.predict_video(
    finder, film, sampling=Sampling(every=5), annotate=tmp_path / "out"
  )
  assert drawn == [1] * 5 + [0] * 5 + [1] * 10
  times, pictures = decoded(tmp_path / "out/odd_annotated.mp4")
  assert times == pytest.approx([n / RATE for n in range(FRAMES)], abs=1e-4)
  with av.open(str(tmp_path / "out/odd_annotated.mp4")) as container:
    assert container.duration / 1e6 == pytest.approx(FRAMES / RATE, abs=0.01)
  # Enlarged, and even: the box of 22.5 x 47 is at its left edge, in yellow.
  assert pictures[0].shape == (330, 316, 3)
  yellow = np.array([255, 196, 0])
  assert np.abs(pictures[3][200, 0] - yellow).max() < 60
  assert np.abs(pictures[7][200, 0] - yellow).max() > 60


@pytest.mark.parametrize(
  ("turn", "mirror"),
  [(90, False), (180, False), (0, True), (90, True), (180, True), (270, True)],
)
def test_frames_are_turned_as_a_player_shows_them(
  frames, tmp_path, turn, mirror
):
  frames[:, :24, :24] = 255
  frames[:, :8, :24, 1:] = 0
  options = dict(turn=turn, mirror=mirror)
  path = write_video(
    tmp_path / "a.mp4", frames[:3], "libx264", "yuv420p", **options
  )
  _, (first, *_) = decoded(path)
  expected = np.rot90(frames[0], turn // 90)
  if mirror:
    expected = expected[:, ::-1]
  assert np.abs(first.astype(float) - expected).mean() < 15
  assert np.abs(first.astype(float) - frames[0]).mean() > 30


@pytest.mark.parametrize(
  ("aspect", "turn", "shape"),
  [(Fraction(4, 3), 0, (48, 64)), (2, 90, (96, 48)), (9999, 0, (48, 48))],
)
def test_pixels_that_are_no_squares_are_stretched(
  frames, predictor, tmp_path, aspect, turn, shape
):
  options = dict(codec="libx264", pixels="yuv420p", turn=turn, aspect=aspect)
  path = write_video(tmp_path / "a.mp4", frames[:2], **options)
  _, (first, _) = decoded(path)
  assert first.shape == (*shape, 3)
  video.predict_video(predictor, path, annotate=tmp_path / "out")
  _, (drawn, _) = decoded(tmp_path / "out/a_annotated.mp4")
  height, width, _ = drawn.shape
  assert width / height == pytest.approx(shape[1] / shape[0], abs=0.02)


def test_a_damaged_video_is_answered_in_part(
  film, predictor, capsys, monkeypatch
):
  decode = av.Packet.decode
  packets = itertools.count()

  class Broken:
    def __init__(self, packet):
      self._packet = packet

    def decode(self):
      if next(packets) == 4:
        raise av.InvalidDataError(1094995529, "damaged")
      return decode(self._packet)

  footage_packets = video_io.Footage._packets
  monkeypatch.setattr(
    video_io.Footage,
    "_packets",
    lambda self: map(Broken, footage_packets(self)),
  )
  with pytest.raises(UserError, match="parts of .* are left out.*damaged"):
    video.predict_video(predictor, film, as_json=True)
  out, err = capsys.readouterr()
  assert len(out.splitlines()) == FRAMES - 1
  assert "19 faces in 19 of 19 frames" in err


def test_a_place_that_cannot_be_written_is_named_before_predicting(
  film, camera, predictor, tmp_path, capsys
):
  (tmp_path / "file").touch()
  with pytest.raises(UserError, match="cannot write .*file"):
    video.predict_video(predictor, film, annotate=tmp_path / "file")
  with pytest.raises(UserError, match="cannot write .*file"):
    video.predict_camera(predictor, annotate=tmp_path / "file/sub")
  assert capsys.readouterr().out == ""


def test_a_missing_package_is_named(film, predictor, monkeypatch):
  monkeypatch.setitem(sys.modules, "av", None)
  with pytest.raises(UserError, match="pip install av"):
    video.predict_video(predictor, film)
  with pytest.raises(UserError, match="pip install av"):
    video.predict_camera(predictor)


@pytest.mark.skipif(sys.platform != "linux", reason="names a device of Linux")
def test_a_missing_camera_is_named(predictor):
  with pytest.raises(UserError, match="cannot open webcam=77: No such file"):
    video.predict_camera(predictor, 77)


@pytest.fixture
def camera(film, monkeypatch):
  """Makes the film what the camera sees; then someone presses Ctrl-C."""

  class Camera(video_io.Footage):
    def __iter__(self):
      yield from super().__iter__()
      raise KeyboardInterrupt

  monkeypatch.setattr(
    video_io,
    "open_camera",
    lambda number: Camera(av.open(str(film)), "webcam 0"),
  )


def test_a_camera_is_watched_until_ctrl_c(camera, predictor, capsys, tmp_path):
  counts = video.predict_camera(predictor, as_json=True, annotate=tmp_path)
  said = lines(capsys)
  # Frames that came while the detector worked are passed over.
  assert counts.frames == FRAMES
  assert counts.seen == counts.faces == len(said) > 0
  assert {line["source"] for line in said} == {"webcam 0"}
  times, _ = decoded(tmp_path / "webcam0_annotated.mp4")
  assert times == pytest.approx([n / RATE for n in range(FRAMES)], abs=1e-4)
  video.predict_camera(predictor, annotate=tmp_path)
  recordings = sorted(path.name for path in tmp_path.glob("*.mp4"))
  assert recordings == ["webcam0_annotated-2.mp4", "webcam0_annotated.mp4"]


def test_a_signal_keeps_what_a_camera_saw_and_is_told(
  camera, predictor, monkeypatch, tmp_path
):
  footage = video_io.open_camera(0)

  def terminated():
    yield from itertools.islice(video_io.Footage.__iter__(footage), 5)
    raise Interrupted("interrupted by SIGTERM", 15)

  monkeypatch.setattr(type(footage), "__iter__", lambda self: terminated())
  monkeypatch.setattr(video_io, "open_camera", lambda number: footage)
  with pytest.raises(Interrupted) as stopped:
    video.predict_camera(predictor, annotate=tmp_path, csv=tmp_path / "a.csv")
  assert stopped.value.exit_code == 143
  assert len((tmp_path / "a.csv").read_text().splitlines()) > 1
  times, _ = decoded(tmp_path / "webcam0_annotated.mp4")
  assert len(times) == 5


def test_ctrl_c_before_the_first_frame_writes_nothing(
  camera, predictor, monkeypatch, tmp_path
):
  def interrupted(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(video, "_warm_up", interrupted)
  counts = video.predict_camera(predictor, annotate=tmp_path / "out")
  assert counts.frames == 0 and not (tmp_path / "out").exists()


def test_a_slow_model_passes_frames_over(
  camera, predictor, monkeypatch, capsys
):
  clock = itertools.count(step=Fraction(25, 100))
  monkeypatch.setattr(video.time, "monotonic", lambda: float(next(clock)))
  counts = video.predict_camera(predictor, as_json=True)
  assert [line["frame"] for line in lines(capsys)] == list(range(0, FRAMES, 3))
  assert counts.seen == 7
