"""Copies of images: within splits, across them, and with other labels."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from fer_jax.data.datasets import builder, registry
from fer_jax.data.inspect import duplicates

# Split -> rows, as (grey of the whole image, label); row numbers count on.
ROWS = {
  "train": [(1, 0), (2, 1), (1, 0), (3, 2), (1, 2), (4, 1)],
  "validation": [(2, 1), (5, 0), (5, 0), (2, 1), (6, 2)],
  "test": [(6, 1), (2, 1), (7, 0)],
}


class Repeating(builder.FaceBuilder):
  """Faces of one grey each."""

  VERSION = tfds.core.Version("1.0.0")
  classes = ("angry", "happy", "sad")

  def read_examples(self):
    """Gives the rows, the last split's first."""
    rows: dict[str, list[builder.Example]] = {}
    number = 100
    for split, faces in ROWS.items():
      rows[split] = []
      for grey, label in faces:
        image = np.full(self.image_shape, grey, np.uint8)
        rows[split].append((image, self.target(label), number))
        number += 1
    return dict(reversed(rows.items()))

  def target(self, label):
    """Gives the label."""
    return label


class SoftlyRepeating(Repeating):
  """The same with distributions."""

  def target_feature(self):
    """Three shares."""
    return tfds.features.Tensor(shape=(3,), dtype=np.float32)

  def target(self, label):
    """Gives .5 to the label, .25 to the others."""
    return (np.eye(3)[label] * 0.25 + 0.25).astype(np.float32)


@pytest.fixture(params=[Repeating, SoftlyRepeating])
def dataset(request, tmp_path, monkeypatch):
  place = f"{__name__}:{request.param.__name__}"
  monkeypatch.setitem(registry.DATASETS, "repeating", place)
  return registry.load("repeating", data_dir=str(tmp_path))


def test_audit(dataset):
  found = duplicates.audit(dataset)
  assert found.class_names == Repeating.classes
  assert list(found.counts) == ["train", "validation", "test"]
  assert {s: c.tolist() for s, c in found.counts.items()} == {
    "train": [2, 2, 2],
    "validation": [2, 2, 1],
    "test": [1, 2, 0],
  }
  assert found.sizes == {"train": 6, "validation": 5, "test": 3}
  rows = [[(c.row, c.label) for c in group] for group in found.groups]
  assert rows == [
    [(100, 0), (102, 0), (104, 2)],
    [(101, 1), (106, 1), (109, 1), (112, 1)],
    [(107, 0), (108, 0)],
    [(110, 2), (111, 1)],
  ]
  assert found.groups[3] == (
    duplicates.Copy("validation", 4, 110, 2),
    duplicates.Copy("test", 0, 111, 1),
  )


def test_what_is_counted_of_copies(dataset):
  found = duplicates.audit(dataset)
  assert found.repeats == {"train": 2, "validation": 2, "test": 0}
  assert found.leaks == {
    ("validation", "train"): 2,
    ("test", "train"): 1,
    ("test", "validation"): 2,
  }
  assert list(found.conflicts) == [0, 3]
  assert found.conflicts[3] == found.groups[3]


def test_a_view_is_audited_as_it_is(dataset):
  places = np.array([1, 3, 5])
  train = dataset.split("train").pick(places)
  found = duplicates.audit(dataset.replace(splits={"train": train}))
  assert not found.groups and not found.leaks and not found.conflicts
  assert found.sizes == {"train": 3} and found.repeats == {"train": 0}
