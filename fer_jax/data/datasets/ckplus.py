"""CK+: posed expressions of 118 subjects, tested on subjects never seen.

Lucey et al., "The Extended Cohn-Kanade Dataset (CK+): A complete dataset for
action unit and emotion-specified expression", CVPR Workshops 2010
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from fer_jax import console
from fer_jax.data.datasets import ckplus_releases
from fer_jax.data.datasets import class_names as labels
from fer_jax.data.datasets.builder import Example, FaceBuilder, SourceFiles
from fer_jax.data.datasets.ckplus_releases import Release
from fer_jax.data.datasets.ckplus_sequences import Face, Frame
from fer_jax.data.datasets.subject_folds import (
  FOLD_OPTIONS,
  check_fold_options,
  split_of_subjects,
)
from fer_jax.errors import UserError, require

_TABLE_HAS_NONE = ("fold", "num_folds", "fold_seed", "last_frames")


class CkPlus(FaceBuilder):
  """The last frames of the 327 labeled sequences, split by subject.

  The subjects are assigned to `num_folds` folds. Fold `fold` is the test
  split, the next one (after the last, the first) validation, the others train:
  one run per fold tests every subject once. The best epoch is selected on
  validation, not on test as in some papers: the best of many epochs on the
  test split overestimates the accuracy.

  The folds depend on the labeled sequences, `num_folds` and `fold_seed` only:
  the official tree and CK+48 have the same. ckextended.csv has no subjects: it
  is split by its column Usage, and one person may be in several splits.

  Rows are numbered by subject, sequence and frame through all frames taken,
  before they are split; in ckextended.csv, by line.

  Options: `fold`, 0 to `num_folds - 1`; `num_folds`; `fold_seed`, which draws
  the folds; `last_frames` of each sequence; `num_classes`, 7, or 8 with
  neutral, the first frame of each labeled sequence (CK+48 has none).
  """

  VERSION = tfds.core.Version("1.0.0")
  name = "ckplus"
  classes = labels.CKPLUS_CLASSES
  default_options = {**FOLD_OPTIONS, "last_frames": 3, "num_classes": 7}

  def __init__(self, **kwargs: Any):
    options = {**self.default_options, **kwargs}
    check_fold_options(options)
    count = options["last_frames"]
    ok = isinstance(count, int) and count >= 1
    require(ok, "dataset.last_frames", count, "be an integer >= 1")
    ok = options["num_classes"] in (7, 8)
    must = "be 7, or 8 with neutral"
    require(ok, "dataset.num_classes", options["num_classes"], must)
    self._given = [o for o in _TABLE_HAS_NONE if o in kwargs]
    super().__init__(**kwargs)

  @property
  def class_names(self) -> tuple[str, ...]:
    """Seven expressions, and neutral as the eighth."""
    return self.classes[: self.options["num_classes"]]

  def subjects(self) -> dict[str, list[str]]:
    """Returns the subject of each example of each split; none of the table."""
    return dict(self.info.metadata["subjects"])

  @functools.cached_property
  def _places(self) -> list[Path]:
    return ckplus_releases.search_folders(self.manual_dir, self.data_root)

  @functools.cached_property
  def _releases(self) -> list[Release]:
    return ckplus_releases.find(self._places)

  @functools.cached_property
  def _frames(self) -> list[Frame]:
    release = self._releases[0]
    if release.form != "table":
      neutral = self.options["num_classes"] == 8
      return ckplus_releases.frames(
        release, self.options["last_frames"], neutral
      )
    if self._given:
      names = ", ".join(f"dataset.{name}" for name in self._given)
      raise UserError(
        f"{release.path} tells no subjects and has one frame of a sequence: "
        f"unset {names} to use its own splits, or get CK+48 or the "
        "official CK+"
      )
    return []

  def has_release(self, place: Path) -> bool:
    """Returns whether files of CK+ lie at `place`."""
    return bool(ckplus_releases.find([place]))

  def source(self) -> SourceFiles | None:
    """Returns the files of the release that is in the user's folders now."""
    try:
      if self._releases:
        return ckplus_releases.source_files(self._releases[0], self._frames)
    except OSError as e:
      raise UserError(
        f"cannot look for CK+: {e}; set dataset.manual_dir to a folder "
        "that can be read"
      ) from e
    if self.manual_dir:  # Asked for, so that prepared data are no substitute.
      raise ckplus_releases.missing(self._places, given=True)
    return None

  def origin(self) -> str:
    """Returns the release that is used, and others that are not."""
    release, *others = (str(release.path) for release in self._releases)
    return f"{release} (not {', '.join(others)})" if others else release

  def read_examples(self) -> Mapping[str, list[Example]]:
    """Reads the release and splits it."""
    if not self._releases:
      raise ckplus_releases.missing(self._places, given=False)
    release = self._releases[0]
    read = console.progress(
      ckplus_releases.read(release, self._frames),
      f"{self.name}: reading {release.path.name}",
    )
    faces = [f for f in read if f.label < len(self.class_names)]
    self._counts = np.bincount(
      [f.label for f in faces], minlength=len(self.class_names)
    ).tolist()
    split_of = self._splits_of_subjects()
    self._faces: dict[str, list[Face]] = {
      split: [f for f in faces if split_of.get(f.subject, f.split) == split]
      for split in labels.FER2013_SPLITS.values()
    }
    return {
      split: [(f.image, f.label, f.row) for f in chosen]
      for split, chosen in self._faces.items()
    }

  def _splits_of_subjects(self) -> dict[str, str]:
    """Returns the split of each subject; none for the table."""
    if not self._frames:
      return {}
    neutral = self.classes.index("neutral")
    sequences = {
      (f.subject, f.sequence): f.label
      for f in self._frames
      if f.label != neutral
    }
    subjects = [subject for subject, _ in sequences]
    return split_of_subjects(subjects, list(sequences.values()), self.options)

  def extra_metadata(self) -> dict[str, Any]:
    """Returns the subject of each example of each split."""
    return {
      "subjects": {
        split: [f.subject for f in faces if f.subject]
        for split, faces in self._faces.items()
      }
    }

  def after_preparation(self) -> None:
    """Warns where the counts differ from the official ones."""
    release = self._releases[0]
    table = release.form == "table"
    times = 1 if table else self.options["last_frames"]
    official = [count * times for count in labels.CKPLUS_COUNTS]
    official.append(
      labels.CKEXTENDED_NEUTRAL if table else sum(labels.CKPLUS_COUNTS)
    )
    differing = [
      f"{name} {count} (official: {expected})"
      for name, count, expected in zip(
        self.class_names, self._counts, official, strict=False
      )
      if count != expected
    ]
    if differing:
      logging.warning(
        "%s differs from the official CK+: it has %s",
        release.path,
        ", ".join(differing),
      )
    by_hand = sum(bool(frame.landmarks) for frame in self._frames)
    if 0 < by_hand < len(self._frames):
      logging.warning(
        "%s: %d of %d frames have no landmarks; a detector found their faces",
        release.path,
        len(self._frames) - by_hand,
        len(self._frames),
      )
