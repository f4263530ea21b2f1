r"""Writes the scores of a released model into its model card.

python -m fer_jax.pretrained.card --name=ferplus-resnet18 \
  --page=docs/models/ferplus-resnet18.md

Replaces what stands between the two marks of the page; what people wrote around
it stays. The figures are of the released file, in float32 on this machine, on
the validation split of the dataset it was trained on.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from jaxtyping import Bool, Float
from scipy import stats

from fer_jax.errors import UserError
from fer_jax.evaluation import calibration, plots
from fer_jax.evaluation.predictions import Predictions, predict
from fer_jax.evaluation.scores import score
from fer_jax.files import atomic_write
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.object_stores.urls import require_local
from fer_jax.plot_theme import to_png
from fer_jax.pretrained import released
from fer_jax.tables import format_markdown
from fer_jax.training.runtime import startup

START = "<!-- scores: written by python -m fer_jax.pretrained.card -->"
END = "<!-- end of the scores -->"


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
  """Predictions of a released model for a set of images.

  Attributes:
    images: what they are, for a table.
    views: test-time augmentation, "none" or "flip".
    found: the predictions.
  """

  images: str
  views: str
  found: Predictions

  @property
  def right(self) -> Bool[np.ndarray, " n"]:
    """Which images are classified correctly."""
    return self.found.predicted == self.found.labels


def evaluate(
  model: TrainedModel,
  manual_dir: str | None = None,
  data_dir: str | None = None,
) -> list[Evaluation]:
  """Evaluates a released model on its validation split, with and without flips.

  A model of FER+'s vote distributions is also evaluated on the images with a
  majority, first.

  Args:
    model: as `released.load` returns it.
    manual_dir: where the dataset's release lies, if not where the run's did.
    data_dir: where prepared data lie, if not where the run's did.

  Raises:
    UserError: the dataset is not there.
  """
  kinds = [("validation images", model)]
  if model.config.dataset.get("target") == "distribution":
    config = model.config.copy_and_resolve_references()
    with config.unlocked():
      config.dataset.target = "majority"
    of_majority = dataclasses.replace(model, config=config)
    kinds = [
      ("images with a majority", of_majority),
      ("images of the vote distributions, most-voted class", model),
    ]
  return [
    Evaluation(
      images, views, predict([each], "validation", views, manual_dir, data_dir)
    )
    for images, each in kinds
    for views in ("none", "flip")
  ]


def write(
  name: str,
  page: Path,
  folder: Path = released.WEIGHTS,
  manual_dir: str | None = None,
  data_dir: str | None = None,
) -> None:
  """Writes the scores of a released model into a page, and a picture.

  Args:
    name: of the released model.
    page: Markdown with the two marks `START` and `END`; the confusion matrix
      goes to `../images/NAME_confusion.png`.
    folder: of the released files.
    manual_dir: as in `evaluate`.
    data_dir: as in `evaluate`.

  Raises:
    UserError: the model or the page cannot be read, the page has no marks, or
      it cannot be written.
  """
  try:
    text = page.read_text()
  except OSError as e:
    raise UserError(f"cannot read page={page}: {e}") from e
  before, start, rest = text.partition(START)
  _, end, after = rest.partition(END)
  if not (start and end):
    raise UserError(f"page={page} must have the lines {START} and {END}")
  model = released.load(name, 256, folder)
  evaluations = evaluate(model, manual_dir, data_dir)
  picture = Path("..") / "images" / f"{name.replace('-', '_')}_confusion.png"
  parts = render(evaluations, model.info["temperature"])
  shown = f"![Confusion matrix]({picture.as_posix()})"
  scores = "\n\n".join([*parts, shown])
  with atomic_write(page) as temporary:
    temporary.write_text(f"{before}{START}\n\n{scores}\n\n{END}{after}")
  found = evaluations[0].found
  confusion = score(
    found.probabilities, found.labels, found.class_names, num_bootstrap=0
  ).confusion
  figure = plots.confusion_matrix(confusion, found.class_names)
  with atomic_write(page.parent / picture, parents=True) as temporary:
    temporary.write_bytes(to_png(figure))


def render(
  evaluations: Sequence[Evaluation], temperature: float
) -> Iterator[str]:
  """Yields accuracy, the scores by class and the calibration, as Markdown.

  Args:
    evaluations: the first one's scores by class are given.
    temperature: what the classifier's weights were divided by.
  """
  rows = []
  for one in evaluations:
    views = f", `--tta={one.views}`" if one.views != "none" else ""
    kept = ~one.found.leaks
    title = f"{len(kept):,} {one.images}{views}"
    rows.append([title, *_accuracy(one.right)])
    if kept.any():
      name = f"without leaks, {kept.sum():,}"
      rows.append([name, *_accuracy(one.right[kept])])
  yield _table(["images", "accuracy", "95 % interval"], rows)
  first, found = evaluations[0], evaluations[0].found
  yield f"By class, of the {len(found.labels):,} {first.images}:"
  rows, recalls = [], []
  for k, name in enumerate(found.class_names):
    of_class = found.labels == k
    if not of_class.any():
      rows.append([name, "0", "-", "-", "-"])
      continue
    right = first.right[of_class]
    recalls.append(right.mean())
    predicted = found.predicted == k
    precision = (
      f"{first.right[predicted].mean():.1%}" if predicted.any() else "-"
    )
    count = f"{of_class.sum():,}"
    rows.append([name, count, *_accuracy(right), _spaced(precision)])
  header = ["class", "images", "recall", "95 % interval", "precision"]
  yield _table(header, rows)
  mean = _spaced(f"{np.mean(recalls):.1%}")
  yield f"The mean recall of the classes is {mean}."
  rows = [
    [
      f"{len(one.right):,} {one.images}",
      f"{_error(one.found.probabilities**temperature, one.right):.3f}",
      f"{_error(one.found.probabilities, one.right):.3f}",
    ]
    for one in evaluations
    if one.views == "none"
  ]
  divided = f"before the temperature of {temperature:.2f}"
  yield f"Expected calibration error ({calibration.NUM_BINS} bins):"
  yield _table(["images", divided, "released"], rows)


def _accuracy(right: Bool[np.ndarray, " n"]) -> tuple[str, str]:
  """Returns an accuracy and its Wilson interval in percent."""
  test = stats.binomtest(int(right.sum()), len(right))
  interval = test.proportion_ci(method="wilson")
  shown = f"{100 * interval.low:.1f}-{interval.high:.1%}"
  return _spaced(f"{right.mean():.1%}"), _spaced(shown)


def _error(
  probabilities: Float[np.ndarray, "n k"], right: Bool[np.ndarray, " n"]
) -> float:
  """Returns the calibration error of probabilities up to a factor."""
  sums = probabilities.sum(axis=1)
  return calibration.calibrate(probabilities.max(axis=1) / sums, right).error


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  return "\n".join(format_markdown(header, rows))


def _spaced(percent: str) -> str:
  return percent.replace("%", " %")


def define_flags() -> None:
  """Defines the flags that name a released model, its card and its data."""
  flags.DEFINE_string("name", None, "The released model.", required=True)
  flags.DEFINE_string("page", "", "The model card.")
  flags.DEFINE_string("folder", str(released.WEIGHTS), "Of the released files.")
  flags.DEFINE_string("manual_dir", None, "Where the release's files lie.")
  flags.DEFINE_string("data_dir", None, "Where prepared data lie.")


def main(argv: Sequence[str]) -> None:
  """Writes the card that the flags name."""
  del argv
  given = flags.FLAGS
  if not given.page:
    raise UserError("page is not set: give the model card to write")
  startup.start()
  page = require_local(given.page, "page")
  folder = require_local(given.folder, "folder", is_input=True)
  write(given.name, page, folder, given.manual_dir, given.data_dir)
  print(f"wrote {page}", file=sys.stderr)


if __name__ == "__main__":
  from fer_jax.cli import app

  define_flags()
  app.run(main)
