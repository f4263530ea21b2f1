"""Progress and other lines on stderr."""

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm

from fer_jax.text_output import SafeStream

_T = TypeVar("_T")
_SECONDS_PER_LINE = 60


def progress(
  examples: Iterable[_T],
  description: str,
  total: int | None = None,
  start: int = 0,
  unit: str = "examples",
) -> Iterator[_T]:
  """Yields the examples and shows number, rate and estimated time left.

  A bar on a terminal, which is cleared at the end; elsewhere a line per minute.

  Args:
    examples: what to yield.
    description: name of the work, "fer2013: writing train".
    total: number of examples, if known.
    start: how many of them were done before.
    unit: what they are.
  """
  if total is None and isinstance(examples, Sized):
    total = len(examples)
  if sys.stderr is not None and sys.stderr.isatty():
    yield from tqdm(
      examples,
      desc=description,
      unit=f" {unit}",
      total=total,
      initial=start,
      leave=False,
    )
    return
  began = said = time.monotonic()
  for count, example in enumerate(examples, 1):
    yield example
    now = time.monotonic()
    if now - said >= _SECONDS_PER_LINE:
      said = now
      rate = count / (now - began)
      say(f"{description}: {_progress(start + count, total, rate, unit)}")


def _progress(done: int, total: int | None, rate: float, unit: str) -> str:
  """Describes progress in words.

  >>> _progress(1200, 3600, 40.0, "examples")
  '1,200 of 3,600 examples, 40.0 examples/s, 1 min left'
  """
  if not total:
    return f"{done:,} {unit}, {rate:,.1f} {unit}/s"
  minutes = (total - done) / rate / 60
  left = f"{minutes:,.0f} min left"
  return f"{done:,} of {total:,} {unit}, {rate:,.1f} {unit}/s, {left}"


def say(line: str) -> None:
  """Prints a line on stderr, above a progress bar if there is one.

  What a closed terminal or a full disk does not take is dropped.
  """
  if sys.stderr is not None:
    with tqdm.external_write_mode(sys.stderr):
      print(line, file=SafeStream(sys.stderr))
