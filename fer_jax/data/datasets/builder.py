"""The base of every data set: rows in, array_record files out, once.

A preparation is whole or absent: it is written beside its place under a lock
and moved there when done, so that an interrupted run leaves nothing behind
that looks prepared, and two runs at once prepare one after the other.
"""

import abc
import contextlib
import fcntl
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow_datasets as tfds

from fer_jax.data import preparation_progress
from fer_jax.errors import UserError, choose

# Image uint8 [h w c], target, row in the release.
Row = tuple[np.ndarray, Any, int]


class FaceBuilder(
  tfds.core.GeneratorBasedBuilder,
  skip_registration=True,  # type: ignore[call-arg]
):
  """A data set of faces that knows how to read its release.

  A subclass sets `VERSION`, `classes` and, where they differ,
  `default_options`, and writes `read_rows`; it overrides `class_names` and
  `image_shape` where its options change them. Its name is the class's in snake
  case, unless it sets `name`. Prepared data hold, in this order of rows,
  `image` uint8 `[h w c]`, `target` int64 (or what `target_feature` says) and
  `row` int64; the metadata hold `class_names` and `source`.

  Args:
    manual_dir: where the release's files lie, or one such file; "" is the
      data set's own choice.
    data_dir: where prepared data go; "" is tensorflow-datasets' folder.
    **options: fields of `default_options` with other values. Every choice of
      options is prepared on its own.
  """

  classes: ClassVar[tuple[str, ...]] = ()
  default_options: ClassVar[Mapping[str, Any]] = {}
  # Where tensorflow-datasets looks for checksums of downloads. Nothing is
  # downloaded, and to look takes a package that it does not install.
  code_path = None

  def __init_subclass__(cls, **kwargs: Any):
    # fer_jax.data.datasets.registry lists the datasets; a second list, global
    # to the process and refusing equal names, would only get in the way.
    super().__init_subclass__(skip_registration=True, **kwargs)

  def __init__(
    self, *, manual_dir: str = "", data_dir: str = "", **options: Any
  ):
    for option in options:
      choose(f"option of data set {self.name}", option, self.default_options)
    self.options = {**self.default_options, **options}
    self.manual_dir = manual_dir
    self.data_root = data_dir
    with preparation_progress.tfds_logs_hidden():
      super().__init__(
        data_dir=os.path.expanduser(data_dir) or None,
        config=self._options_config(),
        file_format="array_record",
      )
    # What pickling calls __init__ with (grain sends data to its workers).
    self._original_state = {
      "manual_dir": manual_dir,
      "data_dir": data_dir,
      **options,
    }

  @property
  def class_names(self) -> tuple[str, ...]:
    """What target `i`, or place `i` of a target, stands for."""
    return self.classes

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """Height, width and channels of every image."""
    return 48, 48, 1

  @abc.abstractmethod
  def read_rows(self) -> Mapping[str, Iterable[Row]]:
    """Reads the release.

    Returns:
      For each split, its rows in order: image uint8 `[h w c]`, target and the
      row's number in the release. A split without rows is left out of the
      prepared data.

    Raises:
      UserError: the release is missing or wrong.
    """

  def source(self) -> dict[str, Any] | None:
    """Says what `read_rows` would read now, in JSON's terms.

    Data prepared from another source are prepared again. None: there is
    nothing to read now, so prepared data are taken as they are.
    """
    return {}

  def origin(self) -> str:
    """Says for people what `read_rows` reads; "" where there is no file."""
    return ""

  def target_feature(self) -> tfds.features.FeatureConnector:
    """Returns the feature of one target; a class number by default."""
    return tfds.features.Scalar(np.int64)

  def after_preparation(self) -> None:
    """Warns of what was odd in the rows; the builder that read them does."""

  def prepare(self) -> Self:
    """Prepares the data unless they are prepared already.

    Returns:
      A builder that reads the prepared data.

    Raises:
      UserError: the release is missing or wrong, or the folder of prepared
        data cannot be written.
    """
    with preparation_progress.tfds_logs_hidden():
      source = self.source()
      try:
        if not self._is_prepared(source):
          self._check_data_dir()
          with _lock(Path(self.data_dir).parent):
            # Another run may have prepared while this one waited.
            if not self._is_prepared(source):
              self._prepare_into_place()
      except OSError as e:
        raise UserError(
          f"cannot prepare data set {self.name} in {self.data_dir!r}: {e}; "
          "set dataset.data_dir to a folder that can be written"
        ) from e
      return self._again()

  def has_release(self, place: Path) -> bool:
    """Returns whether files of the dataset's release lie at `place`."""
    del place
    return False

  def _check_data_dir(self) -> None:
    """Refuses a `data_dir` that was meant to be `manual_dir`.

    Raises:
      UserError: it holds the files of a release.
    """
    if self.manual_dir or not self.data_root:
      return
    if self.has_release(Path(self.data_root).expanduser()):
      raise UserError(
        f"dataset.data_dir={self.data_root} is where prepared data go, but it"
        f" holds a release of {self.name}: use"
        f" dataset.manual_dir={self.data_root}, and leave data_dir unset or"
        " give another folder"
      )

  def _recorded_source(self) -> dict[str, Any] | None:
    """Returns the source that prepared data came from; None without data."""
    try:
      return json.loads((Path(self.data_dir) / "metadata.json").read_text())[
        "source"
      ]
    except (OSError, ValueError, KeyError):
      return None

  def _is_prepared(self, source: dict[str, Any] | None) -> bool:
    recorded = self._recorded_source()
    if recorded is None:
      return False
    return source is None or source == recorded

  def _again(self, **changes: Any) -> Self:
    """Returns a new builder of the same data: it sees what is on disk now."""
    return type(self)(**{**self._original_state, **changes})

  def _prepare_into_place(self) -> None:
    """Prepares beside the data's place, then moves there; under the lock."""
    place = Path(self.data_dir)
    for left_over in place.parent.glob("incomplete.*"):
      shutil.rmtree(left_over, ignore_errors=True)
    started = time.monotonic()
    staging = tempfile.mkdtemp(prefix="incomplete.", dir=place.parent)
    try:
      staged = self._again(data_dir=staging)
      staged.data_root = self.data_root  # also tells where releases lie
      with preparation_progress.tfds_output_hidden():
        staged.download_and_prepare()
      replaces = place.exists()
      if replaces:
        place.rename(Path(staging) / "replaced")
      Path(staged.data_dir).rename(place)
    finally:
      shutil.rmtree(staging, ignore_errors=True)
    seconds = time.monotonic() - started
    origin = f" from {staged.origin()}" if staged.origin() else ""
    instead = ", instead of data from another release" if replaces else ""
    preparation_progress.say(
      f"prepared {self.name}{origin} in {place} ({seconds:.1f} s){instead}"
    )
    staged.after_preparation()

  def _options_config(self) -> tfds.core.BuilderConfig | None:
    """Returns what keeps other options' data in a folder of their own."""
    changed = [
      f"{name}={value}"
      for name, value in sorted(self.options.items())
      if value != self.default_options[name]
    ]
    if not changed:
      return None
    # Characters that a folder's name cannot hold are not worth an escape.
    name = "".join(
      c if c.isalnum() or c in "=,.-_" else "_" for c in ",".join(changed)
    )
    return tfds.core.BuilderConfig(name=name, version=self.VERSION)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          # As bytes, a record is a tenth of the default's work to parse.
          "image": tfds.features.Tensor(
            shape=self.image_shape, dtype=np.uint8, encoding="bytes"
          ),
          "target": self.target_feature(),
          "row": tfds.features.Scalar(np.int64),
        }
      ),
      metadata=tfds.core.MetadataDict(class_names=list(self.class_names)),
      disable_shuffling=True,
    )

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
    del dl_manager  # Nothing is downloaded.
    self.info.metadata["source"] = self.source()
    generators = {}
    for split, rows in self.read_rows().items():
      first, rest = _peek(rows)
      if first:
        generators[split] = self._generate_examples(split, first, rest)
    return generators

  def _generate_examples(
    self, split: str, first: list[Row], rest: Iterator[Row]
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = itertools.chain(first, rest)
    # The key orders the rows: their own order, whatever their numbers are.
    for key, (image, target, row) in enumerate(
      preparation_progress.progress(rows, f"{self.name}: writing {split}")
    ):
      yield key, {"image": image, "target": target, "row": row}


def _peek(rows: Iterable[Row]) -> tuple[list[Row], Iterator[Row]]:
  """Returns the first row, if there is one, and the rest."""
  iterator = iter(rows)
  return list(itertools.islice(iterator, 1)), iterator


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
  """Holds `folder` against other processes; the kernel frees dead ones'."""
  folder.mkdir(parents=True, exist_ok=True)
  with open(folder / ".lock", "w") as f:
    try:
      fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      preparation_progress.say(
        f"waiting for another run that prepares in {folder}"
      )
      fcntl.flock(f, fcntl.LOCK_EX)
    yield
