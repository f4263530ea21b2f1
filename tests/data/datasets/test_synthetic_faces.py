"""Tests of the drawn faces: exact, balanced, and telling expressions apart."""

import hashlib
from typing import Any

import numpy as np
import pytest

from fer_jax.data.datasets import class_names, registry
from fer_jax.data.datasets import synthetic_faces as sf
from fer_jax.errors import UserError

CLASSES = class_names.FER2013_CLASSES
SMALL: dict[str, Any] = {"num_train": 70, "num_validation": 14, "num_test": 7}


@pytest.fixture(scope="module")
def people():
  """The same 60 people with every expression, float `[7 60 48 48]`."""
  return {
    name: sf.draw_faces(np.full(60, k), seed=11)[..., 0].astype(float)
    for k, name in enumerate(CLASSES)
  }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
  folder = tmp_path_factory.mktemp("prepared")
  return registry.load("synthetic_faces", data_dir=str(folder), **SMALL)


def test_bytes_are_pinned():
  images = sf.draw_faces(np.arange(14) % 7, seed=3)
  assert images.shape == (14, 48, 48, 1) and images.dtype == np.uint8
  assert hashlib.sha256(images.tobytes()).hexdigest() == (
    "d5e8d26d97e1493cc6f6f75251b56320450fc8d7fc7faa136b0a753e540dfe87"
  )


def test_images_do_not_depend_on_their_neighbours():
  targets = np.arange(40) % 7
  together = sf.draw_faces(targets, seed=5)
  late = sf.draw_faces(targets[33:], seed=5, first=33)
  np.testing.assert_array_equal(together[33:], late)
  assert sf.draw_faces(targets[:0], seed=5).shape == (0, 48, 48, 1)


def test_seeds_draw_other_people():
  targets = np.zeros(8, int)
  first, second = (sf.draw_faces(targets, seed=seed) for seed in (0, 1))
  assert (np.abs(first.astype(int) - second).mean(axis=(1, 2, 3)) > 5).all()


def test_every_variant_uses_known_units_within_range():
  assert tuple(sf.VARIANTS) == CLASSES
  for variants in sf.VARIANTS.values():
    for variant in variants:
      assert set(variant) <= set(sf.UNITS)
      assert all(0 < value <= 1 for value in variant.values())


def test_images_use_the_grey_scale(people):
  images = np.stack(list(people.values()))
  assert images.min() == 0 and images.max() == 255
  assert 85 < images.mean() < 150
  assert (images.std(axis=(2, 3)) > 10).all()  # None is blank.


def test_images_of_a_class_vary(people):
  for images in people.values():
    assert len(np.unique(images.reshape(60, -1), axis=0)) == 60
    assert images.std(axis=0).mean() > 30


def _mouth(images):
  return images[:, 30:45, 15:33].mean()


def _eyes(images):
  return images[:, 17:27, 10:38]


def test_an_open_mouth_is_darker(people):
  assert _mouth(people["surprise"]) < _mouth(people["neutral"]) - 3


def test_expression_changes_the_face_and_only_the_face(people):
  for name in CLASSES[:-1]:
    change = np.abs(people[name] - people["neutral"])
    # The background's corner is the same to the byte; the face is not.
    assert change[:, :3, :3].max() == 0
    assert change[:, 15:42, 12:36].mean() > 3, name


def test_wide_eyes_show_more_white(people):
  def white(name):
    return np.percentile(_eyes(people[name]), 99, axis=(1, 2)).mean()

  assert white("surprise") > white("happy") + 5
  assert white("fear") > white("sad") + 5


def test_lowered_brows_are_darker_between_the_eyes(people):
  between = {n: v[:, 14:22, 20:28].mean() for n, v in people.items()}
  assert between["angry"] < between["neutral"] - 3
  assert between["disgust"] < between["surprise"] - 3


def test_intensity_runs_from_hardly_seen_to_full():
  n = 400
  rng = np.random.default_rng(0)
  num_units = len(sf.UNITS)
  units = sf._intensities(
    np.full(n, CLASSES.index("surprise")),
    rng.random((n, num_units)),
    rng.random((n, num_units)),
    rng.random((n, 2)),
  )
  jaw = units[:, sf.UNITS.index("au26")]
  assert jaw.min() < 0.45 and jaw.max() > 0.9
  assert units.min() >= 0 and units.max() <= 1
  assert units[:, sf.UNITS.index("au12")].max() <= sf.TWITCH


def test_pixels_alone_do_not_tell_classes():
  # The nearest of the class means, the simplest linear classifier. Chance is
  # one in seven.
  targets = np.arange(700) % 7
  train = sf.draw_faces(targets, seed=1)[..., 0].reshape(700, -1) / 255
  test = sf.draw_faces(targets[:210], seed=2)[..., 0].reshape(210, -1) / 255
  means = np.stack([train[targets == k].mean(axis=0) for k in range(7)])
  scores = test @ means.T - (means * means).sum(axis=1)[None, :] / 2
  accuracy = (scores.argmax(axis=1) == targets[:210]).mean()
  assert accuracy < 0.5


@pytest.mark.parametrize("num_images", [0, 1, 6, 7, 100, 999, 7000])
def test_class_counts_add_up(num_images):
  counts = sf.class_counts(num_images)
  assert sum(counts) == num_images
  shares = np.array(sf.CLASS_WEIGHTS) / sum(sf.CLASS_WEIGHTS)
  assert np.abs(counts - shares * num_images).max() < 1


def test_splits_hold_every_class_as_documented(dataset):
  assert dataset.class_names == CLASSES
  assert dataset.image_shape == (48, 48, 1)
  for split, number in zip(
    ("train", "validation", "test"), SMALL.values(), strict=True
  ):
    arrays = dataset.split(split).arrays()
    assert arrays["image"].shape == (number, 48, 48, 1)
    counts = np.bincount(arrays["target"], minlength=7)
    assert counts.tolist() == sf.class_counts(number)
    np.testing.assert_array_equal(arrays["row"], np.arange(number))
  train = dataset.split("train").arrays()["target"]
  assert (np.diff(train) < 0).sum() > 10  # Classes are mixed.


def test_splits_are_disjoint(dataset):
  images = np.concatenate(
    [split.arrays()["image"] for split in dataset.splits.values()]
  )
  unique = np.unique(images.reshape(len(images), -1), axis=0)
  assert len(unique) == sum(SMALL.values())


def test_rows_are_redrawn_from_their_number(dataset):
  arrays = dataset.split("validation").arrays()
  drawn = sf.draw_faces(arrays["target"], seed=1)
  np.testing.assert_array_equal(arrays["image"], drawn)


def test_other_seeds_share_no_split_seed(tmp_path):
  def seeds(seed):
    builder = sf.SyntheticFaces(data_dir=str(tmp_path), seed=seed)
    return set(builder.split_seeds().values())

  assert not seeds(0) & seeds(1) and len(seeds(0)) == 3


@pytest.mark.parametrize(
  ("option", "value"), [("num_train", -1), ("num_test", 2.5), ("seed", "x")]
)
def test_a_wrong_option_is_one_clear_line(tmp_path, option, value):
  with pytest.raises(UserError) as error:
    registry.load("synthetic_faces", data_dir=str(tmp_path), **{option: value})
  message = str(error.value)
  assert option in message and str(value) in message and "\n" not in message
