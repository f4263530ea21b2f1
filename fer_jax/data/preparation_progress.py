"""What people see of a preparation: a bar, a line, and no more."""

import contextlib
import io
import logging as std_logging
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from absl import logging
from tqdm import tqdm


def progress(rows: Iterable[Any], description: str) -> Iterable[Any]:
  """Shows how far `rows` are, on a terminal only, and clears it after."""
  return tqdm(rows, desc=description, unit=" rows", leave=False, disable=None)


def say(line: str) -> None:
  """Prints a line on stderr, whatever is logged and whatever bar is there."""
  tqdm.write(line, file=sys.stderr)


class _NotFromTfds(std_logging.Filter):
  """Drops what tensorflow-datasets logs, short of errors."""

  def filter(self, record: std_logging.LogRecord) -> bool:
    ours = "tensorflow_datasets" not in record.pathname
    return ours or record.levelno >= std_logging.ERROR


@contextlib.contextmanager
def tfds_logs_hidden() -> Iterator[None]:
  """Hides what tensorflow-datasets tells its developers."""
  logger, quiet = logging.get_absl_logger(), _NotFromTfds()
  logger.addFilter(quiet)
  try:
    yield
  finally:
    logger.removeFilter(quiet)


@contextlib.contextmanager
def tfds_output_hidden() -> Iterator[None]:
  """Hides tensorflow-datasets' bars and prints, for one bar of our own."""
  import tensorflow_datasets as tfds  # takes seconds

  tfds.display_progress_bar(False)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    tfds.display_progress_bar(True)
