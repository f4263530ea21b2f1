"""FER2013's counts add up to what the challenge says."""

from fer_jax.data.datasets import class_names


def test_official_counts():
  sums = {split: sum(c) for split, c in class_names.FER2013_COUNTS.items()}
  assert sums == {"train": 28709, "validation": 3589, "test": 3589}
