"""Results as a table, JSON Lines or CSV: a line for every image or frame."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from fer_jax.errors import UserError, unprintable
from fer_jax.inference.prediction import ImageResult, Prediction
from fer_jax.output_folder import write_output
from fer_jax.tables import display_width
from fer_jax.text_output import csv_line, printable

_SOURCE_WIDTH = 40
WriteResult = Callable[[ImageResult], None]


@contextlib.contextmanager
def result_writer(
  class_names: Sequence[str],
  *,
  as_json: bool = False,
  csv: Path | None = None,
  inputs: Iterable[Path] = (),
  is_video: bool = False,
) -> Iterator[WriteResult]:
  """Yields a function that prints a result, and writes it to a CSV file too.

  Args:
    class_names: of the model, for the CSV file's columns.
    as_json: print JSON Lines, one object per image or frame, not a table.
    csv: the CSV file; it replaces one of an earlier run at the end, also after
      Ctrl-C or an error of the input, if there are results by then.
    inputs: files that must stay as they are.
    is_video: whether results have times and frames.

  Raises:
    UserError: the CSV file is an input, was not made by the package, or cannot
      be written; or stdout cannot.
  """
  num_results, stopped = 0, None
  with contextlib.ExitStack() as stack:
    file = None
    if csv:
      temporary = stack.enter_context(write_output(csv, inputs, "table"))
      file = stack.enter_context(open(temporary, "w", encoding="utf-8"))
      print(csv_header(class_names, is_video), file=file)
    if not as_json:
      _print(table_header(is_video))

    def write(result: ImageResult) -> None:
      nonlocal num_results
      if file:
        for line in csv_lines(result, class_names):
          print(line, file=file)
      num_results += 1
      for line in [json_line(result)] if as_json else table_lines(result):
        _print(line)

    try:
      yield write
    except (KeyboardInterrupt, UserError, BrokenPipeError) as e:
      if not num_results:
        raise
      stopped = e  # Raised once the file has its name.
  if stopped:
    raise stopped


def json_line(result: ImageResult) -> str:
  """Returns a result as one line of JSON."""
  return json.dumps(result.to_json(), allow_nan=False)


def table_header(is_video: bool = False) -> str:
  """Returns the first line of the table."""
  where = f"{'time':>10}  {'frame':>8}" if is_video else _padded("image")
  return _table_line(where, "box", "expression", "probability")


def table_lines(result: ImageResult) -> list[str]:
  """Returns a line for each face, or one that says there is none."""
  where = _padded(printable(result.source))
  if result.frame is not None and result.time is not None:
    where = f"{result.time:10.3f}  {result.frame:8}"
  if not result.faces:
    what = "unreadable" if result.error else "no face"
    return [_table_line(where, "-", what, "-")]
  return [
    _table_line(
      where,
      " ".join(f"{n:.0f}" for n in face.box) if face.box else "whole",
      printable(face.label),
      f"{face.probability:.1%}",
    )
    for face in result.faces
  ]


def csv_header(class_names: Sequence[str], is_video: bool = False) -> str:
  """Returns the names of the CSV file's columns."""
  where = ["source", "time", "frame"] if is_video else ["source"]
  what = ["face", "label", "probability", "x", "y", "width", "height", "score"]
  scores = [f"probability of {name}" for name in class_names]
  return csv_line([*where, *what, *scores, "error"])


def csv_lines(result: ImageResult, class_names: Sequence[str]) -> list[str]:
  """Returns a line for each face, or one with empty cells if there is none."""
  where: list[object] = [result.source]
  if result.frame is not None and result.time is not None:
    where += [f"{result.time:.3f}", result.frame]
  if not result.faces:
    empty = [None] * (8 + len(class_names))
    return [csv_line([*where, *empty, result.error])]
  return [
    csv_line([*where, i, *_face_cells(face, class_names), result.error])
    for i, face in enumerate(result.faces)
  ]


def _face_cells(face: Prediction, class_names: Sequence[str]) -> list[object]:
  box = [round(float(n), 1) for n in face.box] if face.box else [None] * 4
  score = None if face.score is None else round(face.score, 4)
  probabilities = [round(face.probabilities[name], 6) for name in class_names]
  return [face.label, round(face.probability, 6), *box, score, *probabilities]


def _table_line(where: str, box: str, label: str, probability: str) -> str:
  return f"{where}  {box:>20}  {_padded(label, 12)}  {probability:>11}"


def _padded(text: str, width: int = _SOURCE_WIDTH) -> str:
  """Returns text with spaces behind, for so many terminal columns."""
  return text + " " * (width - display_width(text))


def _print(line: str) -> None:
  try:
    with tqdm.external_write_mode():  # Not into a progress bar.
      print(line, flush=True)
  except BrokenPipeError:  # The reader has left, which is no error.
    raise
  except OSError as e:  # Not of the CSV file, which is kept.
    raise UserError(unprintable(e)) from e
