"""Descriptions of data: what a resumed run compares."""

import numpy as np
import pytest

from fer_jax.data import load
from fer_jax.data.fingerprints import example_digest
from fer_jax.data.splits import differences


@pytest.fixture(scope="module")
def small(tmp_path_factory):
  def make(**options):
    return load(
      "synthetic_faces", num_train=40, num_validation=14, num_test=7, **options
    )

  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("prepared")))
    yield make


def test_the_same_data_have_the_same_description(small):
  description = small().description()
  assert differences(description, small().description()) == []
  assert description["num_examples"] == {
    "train": 40,
    "validation": 14,
    "test": 7,
  }
  assert "40" in repr(small()) and "train" in repr(small())
  assert repr(small().split("train")) == "Split(train, 40 examples)"


def test_other_contents_are_told_by_split(small):
  old, new = small().description(), small(seed=1).description()
  assert differences(old, new) == [
    f"{split}: other images or labels, or another order"
    for split in ("train", "validation", "test")
  ]


def test_views_have_fingerprints_of_their_own(small):
  whole = small()
  view = small(holdout_validation=0.25, holdout_seed=1)
  other = small(holdout_validation=0.25, holdout_seed=2)
  prints = {d.split("train").fingerprint for d in (whole, view, other)}
  assert len(prints) == 3
  again = small(holdout_validation=0.25, holdout_seed=1)
  assert view.split("train").fingerprint == again.split("train").fingerprint


@pytest.mark.parametrize(
  ("target", "other"),
  [(0, 1), (np.array([0.5, 0.5]), np.array([0.4, 0.6]))],
)
def test_a_digest_depends_on_image_and_target(target, other):
  image = np.zeros((2, 2, 1), np.uint8)
  digest = example_digest(image, target)
  assert digest == example_digest(image.copy(), target)
  assert digest != example_digest(image, other)
  assert digest != example_digest(image + np.uint8(1), target)


def test_a_fingerprint_depends_on_the_order(small):
  train = small().split("train")
  forward, backward = np.arange(len(train)), np.arange(len(train))[::-1]
  assert train.pick(forward).fingerprint != train.pick(backward).fingerprint


def test_what_an_old_checkpoint_knows_is_compared(small):
  new = small().description()
  old = {
    "class_names": [*new["class_names"][:-1], "zhappy"],
    "image_shape": [48, 48, 3],
    "num_examples": {"train": 41},
  }
  names, shape, count = differences(old, new)
  assert names.startswith("class_names: ") and "zhappy ->" in names
  assert shape == "image_shape: 48 x 48 x 3 -> 48 x 48 x 1"
  assert count == "train: 41 -> 40 examples"
  del old["class_names"], old["image_shape"], old["num_examples"]
  assert differences(old, new) == []


def test_a_split_that_is_gone_is_told(small):
  old = small().description()
  new = {**old, "num_examples": {"train": 40}, "fingerprints": {}}
  assert "test: 7 -> 0 examples" in differences(old, new)
