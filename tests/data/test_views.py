"""Subsets, holdouts and duplicates, through `load` as a user gets them."""

import logging

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.data import views
from fer_jax.data.datasets import builder, registry
from fer_jax.errors import UserError

CLASSES = ("angry", "happy", "sad", "calm")


class Numbered(builder.FaceBuilder):
  """Images that all differ, by row; classes of 40, 30, 20 and 10 rows."""

  VERSION = tfds.core.Version("1.0.0")
  classes = CLASSES

  def read_examples(self):
    """Gives the rows; validation repeats the first five of train."""
    labels = np.repeat(range(4), (40, 30, 20, 10))[::-1]
    train = [
      (np.full(self.image_shape, row, np.uint8), int(label), row)
      for row, label in enumerate(labels)
    ]
    again = [(image, label, 200 + row) for image, label, row in train[:5]]
    new = [(np.full(self.image_shape, 150, np.uint8), 1, 300)]
    return {"train": train, "validation": again + new, "test": []}


class Voted(Numbered):
  """Targets are distributions: .6 of the label, .3 of the next, .1 of one."""

  def target_feature(self):
    """Four shares."""
    return tfds.features.Tensor(shape=(4,), dtype=np.float32)

  def read_examples(self):
    """Gives the rows."""
    return {
      split: [(image, self.votes(label), row) for image, label, row in rows]
      for split, rows in super().read_examples().items()
    }

  def votes(self, label):
    """Gives the shares."""
    shares = np.zeros(4, np.float32)
    shares[label] = 0.6
    shares[(label + 1) % 4] = 0.3
    shares[(label + 2) % 4] = 0.1
    return shares


@pytest.fixture(scope="module")
def load(tmp_path_factory):
  folder = str(tmp_path_factory.mktemp("prepared"))
  with pytest.MonkeyPatch.context() as patch:
    for cls in (Numbered, Voted):
      name = cls.__name__.lower()
      patch.setitem(registry.DATASETS, name, f"{__name__}:{cls.__name__}")
    yield lambda name="numbered", **options: registry.load(
      name, data_dir=folder, **options
    )


def test_classes_are_picked_and_renumbered(load):
  assert load(classes=["sad", "angry"]).class_names == ("sad", "angry")
  dataset = load(classes="sad, angry")
  assert dataset.class_names == ("sad", "angry") and dataset.num_classes == 2
  whole = load().split("train").arrays()
  arrays = dataset.split("train").arrays()
  assert np.bincount(arrays["target"]).tolist() == [20, 40]
  for image, target, row in zip(*arrays.values(), strict=True):
    label = whole["target"][whole["row"] == row]
    assert (image == row).all()
    assert CLASSES[label[0]] == dataset.class_names[target]


def test_a_split_read_in_part_is_the_whole_in_part(load):
  split = load(classes="happy,calm", holdout_test=0.2).split("train")
  places = np.array([3, 0, 7])
  part, arrays = split.read(places), split.arrays()
  for key, array in part.items():
    np.testing.assert_array_equal(array, arrays[key][places])
  np.testing.assert_array_equal(
    load(classes="happy,calm", holdout_test=0.2).split("train").targets(),
    arrays["target"],
  )


def test_distributions_are_shared_out_anew(load):
  arrays = load("voted", classes="happy,angry").split("train").arrays()
  assert len(arrays["target"]) == 70
  happy = arrays["target"][arrays["target"].argmax(1) == 0]
  angry = arrays["target"][arrays["target"].argmax(1) == 1]
  assert (len(happy), len(angry)) == (30, 40)
  # Of happy's votes none are angry's; of angry's, .3 are happy's.
  np.testing.assert_allclose(happy, np.tile([1.0, 0.0], (30, 1)), atol=1e-6)
  expected = np.tile([1 / 3, 2 / 3], (40, 1))
  np.testing.assert_allclose(angry, expected, atol=1e-6)


@pytest.mark.parametrize(
  ("classes", "message"),
  [
    ("happy,glad", "unknown class of dataset numbered 'glad'.*angry, calm"),
    ("happy", "classes=happy: give two or more different classes of angry"),
    ("happy,happy", "classes=happy,happy: give two or more different"),
  ],
)
def test_wrong_classes(load, classes, message):
  with pytest.raises(UserError, match=message):
    load(classes=classes)


def test_a_class_whose_name_has_a_comma_is_quoted(load):
  dataset = load().replace(class_names=("angry", "joy, big", "sad", "calm"))
  picked = views.apply(dataset, classes='"joy, big", sad')
  assert picked.class_names == ("joy, big", "sad")
  spaced = load().replace(class_names=("angry", " joy", "sad", "calm"))
  names = (" joy", "sad")
  assert views.apply(spaced, classes=names).class_names == names
  with pytest.raises(UserError, match='one of angry, calm, "joy, big", sad$'):
    views.apply(dataset, classes="joy, big,sad")
  with pytest.raises(UserError, match='of angry, "joy, big", sad, calm$'):
    views.apply(dataset, classes="sad")
  with pytest.raises(UserError, match=r"classes='sad\\rcalm': new-line"):
    views.apply(dataset, classes="sad\rcalm")


def test_holdouts_part_the_training_rows_class_by_class(load):
  dataset = load(holdout_validation=0.1, holdout_test=0.2)
  rows, labels = {}, {}
  for name in ("train", "validation", "test"):
    split = dataset.split(name)
    assert split.name == name
    rows[name] = split.arrays()["row"].tolist()
    labels[name] = np.bincount(split.targets()).tolist()
  assert labels == {
    "train": [28, 21, 14, 7],
    "validation": [4, 3, 2, 1],
    "test": [8, 6, 4, 2],
  }
  assert sorted(sum(rows.values(), [])) == list(range(100))
  again = load(holdout_validation=0.1, holdout_test=0.2)
  assert again.split("test").arrays()["row"].tolist() == rows["test"]
  other = load(holdout_validation=0.1, holdout_test=0.2, holdout_seed=1)
  assert other.split("test").arrays()["row"].tolist() != rows["test"]


def test_a_class_too_small_for_a_holdout_is_named(load, caplog):
  caplog.set_level(logging.WARNING, logger="absl")
  assert np.bincount(load(holdout_test=0.04).split("test").targets()).size == 3
  (warning,) = [record.getMessage() for record in caplog.records]
  assert "holdout_test=0.04 takes no example of calm (10 training" in warning
  load(holdout_test=0.1, classes="happy,angry")
  assert len(caplog.records) == 1


def test_a_holdout_leaves_the_other_split_alone(load):
  dataset = load(holdout_test=0.5)
  assert len(dataset.split("validation")) == 6
  assert len(dataset.split("test")) == 50 == len(dataset.split("train"))


@settings(deadline=None)
@given(
  fraction=st.floats(0.02, 0.9),
  seed=st.integers(0, 2**31),
)
def test_any_holdout_is_a_partition_in_proportion(load, fraction, seed):
  dataset = load(holdout_test=fraction, holdout_seed=seed)
  train, test = dataset.split("train"), dataset.split("test")
  rows = {*train.arrays()["row"].tolist(), *test.arrays()["row"].tolist()}
  assert len(rows) == 100 == len(train) + len(test)
  counts = np.bincount(test.targets(), minlength=4)
  exact = fraction * np.array([40, 30, 20, 10])
  assert np.abs(counts - exact).max() <= 0.5


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"holdout_test": 1.0}, "holdout_test=1.0 must be a fraction"),
    (
      {"holdout_validation": -0.1},
      "holdout_validation=-0.1 must be a fraction",
    ),
    (
      {"holdout_test": 0.5, "holdout_validation": 0.6},
      "are 1.1 of the training examples together",
    ),
    ({"holdout_seed": 3}, "holdout_seed=3 has no effect without a holdout"),
    (
      {"holdout_test": 0.5, "holdout_seed": -1},
      "holdout_seed=-1 must be an integer of at least 0",
    ),
    ({"holdout_test": "0.5"}, "holdout_test=0.5 must be a fraction"),
    ({"drop_duplicates": "False"}, "drop_duplicates=False must be True or Fa"),
    ({"classes": 3}, "classes=3 must be names"),
    (
      {"holdout_test": 0.96},
      "0.96 for test leaves no training example of class calm, which has 10",
    ),
    (
      {"holdout_test": 0.001},
      "holdout_test=0.001 of 100 training examples is less",
    ),
  ],
)
def test_wrong_holdouts(load, options, message):
  with pytest.raises(UserError, match=message):
    load(**options)


def test_duplicates_leave_training_only(load, capsys):
  dataset = load(drop_duplicates=True)
  assert dataset.split("train").arrays()["row"].tolist() == list(range(5, 100))
  assert len(dataset.split("validation")) == 6
  assert "dropped 5 of 100 training examples" in capsys.readouterr().err


def test_duplicates_that_are_all_of_train_are_not_dropped(load):
  dataset = load()
  splits = {"train": dataset.split("train"), "test": dataset.split("train")}
  with pytest.raises(UserError, match="drop_duplicates=True must be False"):
    views.drop_duplicates(dataset.replace(splits=splits))


def test_a_holdout_of_a_dataset_split_by_subject_is_refused():
  with pytest.raises(UserError, match="holdout_test=0.1 must be 0: jaffe is s"):
    registry.load("jaffe", holdout_test=0.1, holdout_validation=0.0)


def test_no_option_changes_nothing(load):
  plain, viewed = load(), load(classes=None, drop_duplicates=False)
  np.testing.assert_array_equal(
    plain.split("train").arrays()["image"],
    viewed.split("train").arrays()["image"],
  )
  assert views.OPTIONS.keys() == {
    "classes",
    "holdout_validation",
    "holdout_test",
    "holdout_seed",
    "drop_duplicates",
  }
