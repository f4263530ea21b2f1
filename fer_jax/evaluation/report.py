"""The evaluation report: metrics, predictions, plots and an HTML page."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fer_jax import fonts
from fer_jax.data.inspect import image_sheets
from fer_jax.evaluation import html_page, plots
from fer_jax.evaluation.confusion import reorder
from fer_jax.evaluation.predictions import Predictions
from fer_jax.evaluation.scores import Scores, score
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.output_folder import OutputFolder

NUM_MISTAKES = 40  # on the contact sheet

_METRICS, _KIND = "metrics.json", "report"


@dataclasses.dataclass(frozen=True, eq=False)
class Results:
  """Predictions for a split and their scores; `str()` is a table.

  Attributes:
    predictions: predictions for every example.
    scores: scores of all examples.
    leak_free: scores of the examples whose image is not in the training split;
      None if all examples are such, or none is.
    tta: test-time augmentation.
  """

  predictions: Predictions
  scores: Scores
  leak_free: Scores | None
  tta: str

  def __str__(self) -> str:
    text = f"{self.predictions.split}\n{self.scores}"
    if self.leak_free is None:
      return text
    leaks = int(self.predictions.leaks.sum())
    return (
      f"{text}\nwithout the {leaks:,} images that are in the training split"
      f" too: accuracy {self.leak_free.accuracy:.2%}, balanced"
      f" {self.leak_free.balanced_accuracy:.2%}, loss"
      f" {self.leak_free.loss:.4f}"
    )

  __repr__ = __str__

  def to_json(self) -> dict[str, Any]:
    """Returns the scores as dictionaries that can be written as JSON."""
    found = {
      "tta": self.tta,
      "num_leaks": int(self.predictions.leaks.sum()),
      **self.scores.to_json(),
    }
    if self.leak_free is not None:
      found["leak_free"] = self.leak_free.to_json()
    return found


def results_of(predictions: Predictions, tta: str = "none") -> Results:
  """Scores predictions, with and without images of the training split."""
  leaks, leak_free = predictions.leaks, None
  if leaks.any() and not leaks.all():
    leak_free = score(
      predictions.probabilities[~leaks],
      predictions.targets[~leaks],
      predictions.class_names,
    )
  whole = score(
    predictions.probabilities, predictions.targets, predictions.class_names
  )
  return Results(predictions, whole, leak_free, tta)


def check_output(folder: Path, split: str) -> OutputFolder:
  """Returns the folder of a report after checking that it may be written.

  Args:
    folder: folder of the report; need not exist.
    split: the split of the report, or several joined by "+".

  Raises:
    UserError: it cannot be written, holds other files than a report, or a file
      of the report was not made by the package or was changed since.
  """
  output = html_page.report_folder(folder, _KIND)
  for name in (_METRICS, html_page.NAME, *html_page.file_names(split)):
    output.path(name)
  return output


def write(
  results: Results, trained: Sequence[TrainedModel], folder: Path
) -> list[Path]:
  """Writes the report; results of other splits in the folder are kept.

  Args:
    results: results for one split, or for several joined by "+".
    trained: the models that made the predictions.
    folder: folder of the report, created if necessary.

  Returns:
    The files written; the last is the HTML page.

  Raises:
    UserError: as `check_output` does.
  """
  output = check_output(folder, results.predictions.split)
  with fonts.matplotlib_fonts(results.predictions.class_names):
    names = _write(results, trained, output)
  return [folder / name for name in names]


def _write(
  results: Results, trained: Sequence[TrainedModel], output: OutputFolder
) -> list[str]:
  predictions, scores = results.predictions, results.scores
  split, names = predictions.split, predictions.class_names
  metrics = _read(output.folder / _METRICS)
  metrics[split] = {
    "workdirs": [str(model.workdir) for model in trained],
    "checkpoint": trained[0].checkpoint,
    "epochs": [model.epoch for model in trained],
    **results.to_json(),
  }
  with output.write(_METRICS) as temporary:
    temporary.write_text(json.dumps(metrics, indent=2) + "\n")
  files = [_METRICS, f"{split}_predictions.csv"]
  with output.write(files[-1]) as temporary:
    predictions.write_csv(temporary)
  pictures = {
    "confusion": lambda dark: plots.confusion_matrix(
      scores.confusion, names, False, split, dark=dark
    ),
    "confusion_normalized": lambda dark: plots.confusion_matrix(
      scores.confusion, names, True, split, dark=dark
    ),
    "per_class": lambda dark: plots.per_class_bars(scores, dark=dark),
    "reliability": lambda dark: plots.reliability_diagram(
      scores.calibration, dark=dark
    ),
  }
  alphabetical = sorted(names)
  if alphabetical != list(names):
    reordered = reorder(scores.confusion, names, alphabetical)
    pictures["confusion_alphabetical"] = lambda dark: plots.confusion_matrix(
      reordered, alphabetical, True, split, dark=dark
    )
  files += html_page.write_pictures(
    {f"{split}_{name}": draw for name, draw in pictures.items()}, output
  )
  files += [f"{split}_mistakes.png", html_page.NAME]
  with output.write(files[-2]) as temporary:
    mistakes_sheet(predictions).save(temporary, "PNG")
  with output.write(files[-1]) as temporary:
    page = html_page.page(output.folder, trained[0])
    temporary.write_text(page, encoding="utf-8")
  return files


def mistakes_sheet(predictions: Predictions) -> Image.Image:
  """Draws the most confident mistakes, each with its predicted class."""
  wrong = predictions.mistakes()
  shown = wrong[:NUM_MISTAKES]
  names = fonts.drawn_names(predictions.class_names)
  groups = [
    (
      "",
      [
        (
          predictions.images[i],
          f"{names[predictions.predicted[i]]}"
          f" {predictions.probabilities[i].max():.0%}"
          f"\ntrue: {names[predictions.labels[i]]}"
          f"\n{predictions.splits[i]} {predictions.rows[i]}",
        )
      ],
    )
    for i in shown
  ]
  title = (
    f"{predictions.split}: the {len(shown)} most confident of {len(wrong):,}"
    f" mistakes in {len(predictions.labels):,} images"
  )
  return image_sheets.group_sheet(groups, title=title)


def _read(path: Path) -> dict[str, Any]:
  """Returns the metrics of earlier evaluations; {} if there are none."""
  try:
    found = json.loads(path.read_text())
  except (OSError, ValueError):
    return {}
  return found if isinstance(found, dict) else {}
