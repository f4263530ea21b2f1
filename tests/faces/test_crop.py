"""Aligned crops: level eyes at their places."""

import math

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.faces import crop
from fer_jax.faces.crop import align, align_from_landmarks
from fer_jax.faces.face import Face


def dots(left, right, h=200, w=240, c=1):
  """Returns a dark image with a light dot at each eye."""
  y, x = np.mgrid[:h, :w] + 0.5
  image = np.full((h, w, c), 20, np.uint8)
  for eye_x, eye_y in (left, right):
    image[np.hypot(x - eye_x, y - eye_y) < 6] = 250
  return image


def centers(image):
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
  assert centers(aligned) == EYES_AT


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
  assert centers(aligned) == pytest.approx(wanted, abs=0.01)


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


def test_a_face_of_no_size_is_one_color():
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
  assert centers(aligned) == EYES_AT
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


def test_a_panorama_is_cropped_in_bounded_memory(monkeypatch):
  image = np.zeros((2, 2000, 1), np.uint8)
  image[:, 1000:] = 200
  face = Face((0, 0, 2000, 2))
  whole = align(image, face, 48)
  monkeypatch.setattr(crop, "_MOST_PIXELS", 300)
  np.testing.assert_allclose(align(image, face, 48), whole, atol=10)
