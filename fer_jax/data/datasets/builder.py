"""The base of every dataset: reads a release, and describes its examples.

`preparation` writes the examples to array_record files, once.
"""

import abc
import contextlib
import logging as std_logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from fer_jax import files
from fer_jax.data.datasets import preparation
from fer_jax.data.datasets.record_writer import Example, Resumable
from fer_jax.data.datasets.source_files import SourceFiles
from fer_jax.errors import UserError, choose

__all__ = ["Example", "FaceBuilder", "Resumable", "SourceFiles"]


class FaceBuilder(
  tfds.core.GeneratorBasedBuilder,
  skip_registration=True,  # type: ignore[call-arg]
):
  """A dataset of faces that knows how to read its release.

  A subclass sets `VERSION`, `classes` and, where they differ,
  `default_options`, and implements `read_examples`; it overrides `class_names`
  and `image_shape` where its options change them. Its name is the class's in
  snake case, unless it sets `name`. Prepared data hold, in the order of
  `read_examples`, `image` uint8 `[h w c]`, `target` int64 (or what
  `target_feature` says) and `row` int64; the metadata hold `class_names`,
  `source` and `fingerprints`.

  Args:
    manual_dir: folder of the release's files, or one such file; "" is the
      default of the dataset.
    data_dir: folder of prepared data; "" is tensorflow-datasets' folder.
    **options: values of fields of `default_options`. Every choice of options
      is prepared separately.
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
      choose(f"option of dataset {self.name}", option, self.default_options)
    self.options = {**self.default_options, **options}
    self.manual_dir = manual_dir
    self.data_root = data_dir
    with _tfds_logs_hidden():
      super().__init__(
        data_dir=os.path.expanduser(data_dir) or str(files.data_folder()),
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
    """Names of the classes, in the order of the targets."""
    return self.classes

  @property
  def image_shape(self) -> tuple[int, int, int]:
    """Height, width and channels of every image."""
    return 48, 48, 1

  @abc.abstractmethod
  def read_examples(self) -> Mapping[str, Iterable[Example] | Resumable]:
    """Reads the release.

    Returns:
      For each split, its examples in order: image uint8 `[h w c]`, target and
      position in the release. A split without examples is left out of the
      prepared data.

    Raises:
      UserError: the release is missing or wrong.
    """

  def source(self) -> SourceFiles | None:
    """Returns the files that `read_examples` would read now.

    Data prepared from other files are prepared again. None: there is nothing
    to read now, so prepared data are taken as they are.
    """
    return SourceFiles({})

  def origin(self) -> str:
    """Describes what `read_examples` reads; "" where there is no file."""
    return ""

  def file_names(self) -> Sequence[str]:
    """Returns the file of every row, for `Dataset.file_names`."""
    return ()

  def target_feature(self) -> tfds.features.FeatureConnector:
    """Returns the feature of one target; a class number by default."""
    return tfds.features.Scalar(np.int64)

  def extra_metadata(self) -> dict[str, Any]:
    """Returns what to store with the data, after they have been read."""
    return {}

  def after_preparation(self) -> None:
    """Warns of oddities in the release; called on the builder that read it."""

  def prepare(self, *, verify: bool = False) -> Self:
    """Prepares the data unless they are prepared already.

    Args:
      verify: compares the contents of the release's files with those that the
        prepared data were made from, and not only their sizes and times.

    Returns:
      A builder that reads the prepared data.

    Raises:
      UserError: the release is missing or wrong, or the folder of prepared
        data cannot be written.
    """
    with _tfds_logs_hidden():
      preparation.prepare(self, verify)
      return self.reopened()

  def has_release(self, place: Path) -> bool:
    """Returns whether files of the dataset's release lie at `place`."""
    del place
    return False

  def check_data_dir(self) -> None:
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

  def reopened(self, **changes: Any) -> Self:
    """Returns a builder of the same data that sees what is on disk now."""
    return type(self)(**{**self._original_state, **changes})

  def _options_config(self) -> tfds.core.BuilderConfig | None:
    """Returns the name of the folder for these options; None for defaults."""
    changed = [
      f"{name}={value}"
      for name, value in sorted(self.options.items())
      if value != self.default_options[name]
    ]
    if not changed:
      return None
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
    """Returns what tensorflow-datasets' own `download_and_prepare` writes."""
    del dl_manager  # Nothing is downloaded.
    return {
      split: self._generate_examples(
        (example for _, example in examples.read(0))
        if isinstance(examples, Resumable)
        else examples
      )
      for split, examples in self.read_examples().items()
    }

  def _generate_examples(
    self, examples: Iterable[Example]
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    # The key orders the examples: their own order, whatever their rows are.
    for key, (image, target, row) in enumerate(examples):
      yield key, {"image": image, "target": target, "row": row}


class _NotFromTfds(std_logging.Filter):
  """Drops log records of tensorflow-datasets, except errors."""

  def filter(self, record: std_logging.LogRecord) -> bool:
    ours = "tensorflow_datasets" not in record.pathname
    return ours or record.levelno >= std_logging.ERROR


@contextlib.contextmanager
def _tfds_logs_hidden() -> Iterator[None]:
  """Hides tensorflow-datasets' log messages, which are for its developers."""
  logger, quiet = logging.get_absl_logger(), _NotFromTfds()
  logger.addFilter(quiet)
  try:
    yield
  finally:
    logger.removeFilter(quiet)
