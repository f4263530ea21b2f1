"""FER2013: 35,887 gray faces of 48x48 pixels in seven classes.

Goodfellow et al., "Challenges in Representation Learning: A report on three
machine learning contests", 2013, https://arxiv.org/abs/1307.0414
"""

import functools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from fer_jax import console
from fer_jax.data.datasets import class_names, fer2013_releases
from fer_jax.data.datasets.builder import Example, FaceBuilder, SourceFiles
from fer_jax.errors import UserError


class Fer2013(FaceBuilder):
  """Training is `train`, PublicTest `validation`, PrivateTest `test`."""

  VERSION = tfds.core.Version("1.0.0")
  classes = class_names.FER2013_CLASSES

  @functools.cached_property
  def _places(self) -> list[Path]:
    return fer2013_releases.search_folders(self.manual_dir, self.data_root)

  @functools.cached_property
  def _releases(self) -> list[Path]:
    return fer2013_releases.find(self._places)

  def has_release(self, place: Path) -> bool:
    """Returns whether files of FER2013 lie at `place`."""
    return bool(fer2013_releases.find([place]))

  def source(self) -> SourceFiles | None:
    """Returns the files of the release that is in the user's folders now."""
    try:
      if self._releases:
        return fer2013_releases.source_files(self._releases[0])
    except OSError as e:
      raise UserError(
        f"cannot look for FER2013: {e}; set dataset.manual_dir to a "
        "folder that can be read"
      ) from e
    if self.manual_dir:  # Asked for, so that prepared data are no substitute.
      raise fer2013_releases.missing(self._places, given=True)
    return None

  def origin(self) -> str:
    """Returns the release that is used, and others that are not."""
    release, *others = map(str, self._releases)
    return f"{release} (not {', '.join(others)})" if others else release

  def read_examples(self) -> Mapping[str, list[Example]]:
    """Reads the release once for all splits, which take 83 MB in memory."""
    if not self._releases:
      raise fer2013_releases.missing(self._places, given=False)
    release = self._releases[0]
    rows: dict[str, list[Example]] = {
      split: [] for split in class_names.FER2013_SPLITS.values()
    }
    faces = console.progress(
      fer2013_releases.read(release), f"{self.name}: reading {release.name}"
    )
    for face in faces:
      rows[face.split].append((face.image, face.label, face.row))
    self._counts = {
      split: np.bincount(
        np.array([label for _, label, _ in rows[split]], int),
        minlength=len(self.class_names),
      ).tolist()
      for split in rows
    }
    return rows

  def after_preparation(self) -> None:
    """Warns where the counts differ from the official ones."""
    odd = []
    for split, official in class_names.FER2013_COUNTS.items():
      counts = self._counts[split]
      pairs = zip(self.class_names, counts, official, strict=True)
      differing = [
        f"{name} {count} (official: {expected})"
        for name, count, expected in pairs
        if count != expected
      ]
      if not any(counts):
        odd.append(f"{split} has no examples (official: {sum(official)})")
      elif differing:
        odd.append(f"{split} has {', '.join(differing)}")
    if odd:
      logging.warning(
        "%s differs from the official FER2013: %s",
        self._releases[0],
        "; ".join(odd),
      )
