"""FER+: the images of FER2013 with the votes of ten people on each.

Barsoum et al. 2016, "Training Deep Networks for Facial Expression Recognition
with Crowd-Sourced Label Distribution", https://arxiv.org/abs/1608.01041
"""

import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from fer_jax.data import ferplus_file, labels, releases, terminal, votes
from fer_jax.data.builder import Row
from fer_jax.data.fer2013 import Fer2013
from fer_jax.errors import UserError, choose, require

NUM_CLASSES = (8, 10)


class FerPlus(Fer2013):
  """FER2013's splits and images, less the rows without a clear expression.

  Options: `target` is "majority" (a label), "distribution" (shares of the
  votes) or "multi_target" (equal shares of every class that is right), see
  `votes`. `num_classes` is 8 (the expressions; rows that are unknown or no
  face are dropped) or 10 (these are classes too and every row is kept; a row
  without a majority is unknown). `row` is the row of fer2013.csv.
  """

  name = "ferplus"
  VERSION = tfds.core.Version("1.0.0")
  default_options = {"target": "majority", "num_classes": 8}

  def __init__(self, **kwargs: Any):
    options = {**self.default_options, **kwargs}
    choose("--config.dataset.target", options["target"], votes.MODES)
    require(
      options["num_classes"] in NUM_CLASSES,
      "dataset.num_classes",
      options["num_classes"],
      "be 8 (the expressions) or 10 (unknown and no face too)",
    )
    super().__init__(**kwargs)

  @property
  def class_names(self) -> tuple[str, ...]:
    """The expressions in FER+'s order, which is not FER2013's."""
    return labels.FERPLUS_COLUMNS[: self.options["num_classes"]]

  def target_feature(self) -> tfds.features.FeatureConnector:
    """A label, or shares of the classes."""
    if self.options["target"] == "majority":
      return tfds.features.Scalar(np.int64)
    shape = (self.options["num_classes"],)
    return tfds.features.Tensor(shape=shape, dtype=np.float32)

  @functools.cached_property
  def _votes(self) -> list[Path]:
    return ferplus_file.find(self._places)

  def source(self) -> dict[str, Any] | None:
    """Says which release and which votes lie in the user's folders now."""
    faces = super().source()
    if faces and self._votes:
      return {
        "faces": faces,
        "votes": releases.fingerprint(self._votes[0]),
      }
    if self.release_dir:  # Asked for, so prepared data will not do.
      raise ferplus_file.missing(self._places)
    return None

  def origin(self) -> str:
    """Says which files are joined."""
    return f"{self._ordered_release()} and {self._votes[0]}"

  def read_rows(self) -> Mapping[str, list[Row]]:
    """Joins images and votes, row by row."""
    if not self._releases:
      raise releases.missing(self._places, given=False)
    if not self._votes:
      raise ferplus_file.missing(self._places)
    release, votes_file = self._ordered_release(), self._votes[0]
    rows: dict[str, list[Row]] = {
      split: [] for split in labels.FER2013_SPLITS.values()
    }
    pairs = itertools.zip_longest(
      releases.read(release), ferplus_file.read(votes_file)
    )
    number = 0
    for face, vote in terminal.progress(pairs, f"{self.name}: reading"):
      if not face or not vote:
        longer, shorter = votes_file, release
        if not vote:
          longer, shorter = release, votes_file
        raise UserError(
          f"{longer} has more rows than the {number:,} of {shorter}: rows are"
          " joined by their order, so both must be the whole, or have the same"
          " rows left out"
        )
      if face.split != vote.split:
        raise UserError(
          f"{votes_file}, row {number}: votes on an image of {vote.split},"
          f" which in {release} is one of {face.split}: rows are joined by"
          " their order, so both must keep the official one"
        )
      number += 1
      target = self._target(vote.votes)
      if target is not None:
        rows[face.split].append((face.image, target, face.row))
    self._kept = {split: len(rows[split]) for split in rows}
    return rows

  def after_preparation(self) -> None:
    """Warns where the kept rows are not as many as is known."""
    key = (self.options["target"], self.options["num_classes"])
    odd = []
    for split, known in zip(
      self._kept, labels.FERPLUS_COUNTS[key], strict=True
    ):
      kept = self._kept[split]
      if not kept:
        odd.append(f"{split} has no rows")
      elif known is not None and kept != known:
        odd.append(f"{split} has {kept:,} rows (known: {known:,})")
    if odd:
      logging.warning(
        "%s and %s differ from the official FER+: %s",
        self._ordered_release(),
        self._votes[0],
        "; ".join(odd),
      )

  def _ordered_release(self) -> Path:
    """The first release whose rows are in the order of fer2013.csv."""
    for release in self._releases:
      if releases.keeps_order(release):
        return release
    raise UserError(
      f"{self._releases[0]}: FER+'s votes are joined to the rows of fer2013.csv"
      " by their order, which the release as folders of images does not keep"
      " (neither its file numbers nor FER+'s image names are row numbers); get"
      " fer2013.csv, plain or compressed, fer2013.tar.gz or icml_face_data.csv"
    )

  def _target(self, counts: np.ndarray) -> Any:
    """A row's target, or None where it is dropped."""
    shares: Any = votes.MODES[self.options["target"]](counts)
    if self.options["num_classes"] == votes.NUM_EXPRESSIONS:
      shares = votes.expressions_only(shares)
    if shares is None or self.options["target"] != "majority":
      return shares
    return int(shares.argmax())
