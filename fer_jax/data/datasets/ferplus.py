"""FER+: the images of FER2013 with the votes of ten people on each.

Barsoum et al. 2016, "Training Deep Networks for Facial Expression Recognition
with Crowd-Sourced Label Distribution", https://arxiv.org/abs/1608.01041
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from fer_jax import console
from fer_jax.data.datasets import class_names as labels
from fer_jax.data.datasets import (
  fer2013_releases,
  ferplus_csv,
  ferplus_order,
  ferplus_votes,
)
from fer_jax.data.datasets.builder import Example, FaceBuilder, SourceFiles
from fer_jax.data.datasets.ferplus_csv import VoteRow
from fer_jax.errors import UserError, choose, require

NUM_CLASSES = (8, 10)


class FerPlus(FaceBuilder):
  """FER2013's splits and images, without those of no clear expression.

  Options: `target` is "majority" (a label), "distribution" (of the votes) or
  "multi_target" (of the votes for all classes that are right), see
  `ferplus_votes`. `num_classes` is 8 (the expressions; images that are unknown
  or no face are dropped) or 10 (these are classes too and every image is kept;
  one without a majority is unknown). `row` is the row of fer2013.csv, as in the
  dataset fer2013, so that the two can be compared.
  """

  VERSION = tfds.core.Version("1.1.0")
  name = "ferplus"
  classes = labels.FERPLUS_COLUMNS
  default_options = {"target": "majority", "num_classes": 8}

  def __init__(self, **kwargs: Any):
    options = {**self.default_options, **kwargs}
    choose("dataset.target", options["target"], ferplus_votes.MODES)
    ok = options["num_classes"] in NUM_CLASSES
    must = "be 8 (the expressions) or 10 (unknown and no face too)"
    require(ok, "dataset.num_classes", options["num_classes"], must)
    super().__init__(**kwargs)

  @property
  def class_names(self) -> tuple[str, ...]:
    """The expressions in FER+'s order, which is not FER2013's."""
    return self.classes[: self.options["num_classes"]]

  def target_feature(self) -> tfds.features.FeatureConnector:
    """A label, or a distribution over the classes."""
    if self.options["target"] == "majority":
      return tfds.features.Scalar(np.int64)
    shape = (self.options["num_classes"],)
    return tfds.features.Tensor(shape=shape, dtype=np.float32)

  @functools.cached_property
  def _places(self) -> list[Path]:
    return ferplus_csv.search_folders(self.manual_dir, self.data_root)

  @functools.cached_property
  def _releases(self) -> list[Path]:
    return fer2013_releases.find(self._places)

  @functools.cached_property
  def _ordered(self) -> list[Path]:
    """The releases whose rows are in the order of the votes."""
    return [
      path for path in self._releases if fer2013_releases.keeps_order(path)
    ]

  @functools.cached_property
  def _vote_files(self) -> list[Path]:
    return ferplus_csv.find(self._places)

  def has_release(self, place: Path) -> bool:
    """Returns whether files of FER2013 or FER+ lie at `place`."""
    return bool(fer2013_releases.find([place]) or ferplus_csv.find([place]))

  def source(self) -> SourceFiles | None:
    """Returns the release and the votes that are in the user's folders now."""
    try:
      if self._ordered and self._vote_files:
        faces, votes = self._ordered[0], self._vote_files[0]
        return SourceFiles({f"faces/{faces.name}": faces, "votes": votes})
    except OSError as e:
      raise UserError(
        f"cannot look for FER+: {e}; set dataset.manual_dir to a folder "
        "that can be read"
      ) from e
    if self.manual_dir:  # Asked for, so that prepared data are no substitute.
      raise self._unusable()
    return None

  def origin(self) -> str:
    """Returns the files that are joined, and others that are not."""
    taken = f"{self._ordered[0]} and {self._vote_files[0]}"
    others = [*self._ordered[1:], *self._vote_files[1:]]
    return f"{taken} (not {', '.join(map(str, others))})" if others else taken

  def read_examples(self) -> Mapping[str, list[Example]]:
    """Joins images and votes by position."""
    if not (self._ordered and self._vote_files):
      raise self._unusable()
    vote_rows = list(ferplus_csv.read(self._vote_files[0]))
    counts = np.array([row.votes for row in vote_rows], int).reshape(-1, 10)
    targets, kept = ferplus_votes.targets(
      counts, self.options["target"], self.options["num_classes"]
    )
    self._short = np.flatnonzero(counts.sum(axis=1) < ferplus_csv.VOTERS)
    rows: dict[str, list[Example]] = {
      split: [] for split in labels.FER2013_SPLITS.values()
    }
    face_labels = []
    faces = console.progress(
      fer2013_releases.read(self._ordered[0]),
      f"{self.name}: reading {self._ordered[0].name}",
    )
    for place, face in enumerate(faces):
      face_labels.append(face.label)
      if place < len(vote_rows):
        self._check_split(place, face.split, vote_rows[place])
        if kept[place]:
          rows[face.split].append((face.image, targets[place], face.row))
    if len(face_labels) != len(vote_rows):
      raise UserError(
        f"{self._vote_files[0]} has {len(vote_rows):,} rows and "
        f"{self._ordered[0]} {len(face_labels):,}: they are joined by position,"
        " so both must be complete; download the shorter file again"
      )
    self._check_order(np.array(face_labels, int), counts)
    self._kept = {split: len(rows[split]) for split in rows}
    return rows

  def _check_order(self, face_labels: np.ndarray, votes: np.ndarray) -> None:
    voted = ferplus_order.majority_labels(votes)
    if found := ferplus_order.find_mismatch(face_labels, voted):
      raise UserError(
        f"{self._vote_files[0]} is not in the order of {self._ordered[0]}: in"
        f" rows {found.start:,} to {found.stop - 1:,} the votes agree with"
        f" FER2013's labels on {found.agreement:.0%} of the images (chance:"
        f" {found.chance:.0%}, right order: about"
        f" {ferplus_order.EXPECTED:.0%}); rows are joined by position, so use"
        " both files as published, neither sorted nor shuffled"
      )

  def _check_split(self, place: int, split: str, vote_row: VoteRow) -> None:
    if split != vote_row.split:
      raise UserError(
        f"{self._vote_files[0]}, line {vote_row.line}: Usage says "
        f"{vote_row.split}, but row {place} (from 0) of {self._ordered[0]} is "
        f"of {split}: rows are joined by position, so both files must be in the"
        " official order"
      )

  def after_preparation(self) -> None:
    """Warns where there are other numbers than the official ones."""
    key = (self.options["target"], self.options["num_classes"])
    official = labels.FERPLUS_COUNTS.get(key, (None, None, None))
    odd = []
    for (split, kept), known in zip(self._kept.items(), official, strict=True):
      beside = f" (official: {known})" if known else ""
      if not kept:
        odd.append(f"{split} has no examples{beside}")
      elif known and kept != known:
        odd.append(f"{split} keeps {kept} examples{beside}")
    short = [row for row in self._short if row != labels.FERPLUS_SHORT_ROW]
    if short:
      odd.append(
        f"{len(short)} more rows than the official one have fewer than "
        f"{ferplus_csv.VOTERS} votes, first row {short[0]} (from 0)"
      )
    if odd:
      logging.warning(
        "%s with %s differs from the official FER+: %s",
        self._ordered[0],
        self._vote_files[0],
        "; ".join(odd),
      )

  def _unusable(self) -> UserError:
    """Returns the error of files that are missing or not in order."""
    if self._vote_files and self._releases and not self._ordered:
      return ferplus_csv.out_of_order(self._releases[0])
    return ferplus_csv.missing(
      self._places,
      faces=not self._ordered,
      votes=not self._vote_files,
      given=bool(self.manual_dir),
    )
