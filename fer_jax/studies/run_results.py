"""Results of the runs of a study, gathered by recipe and seed."""

import dataclasses
import functools
import hashlib
import itertools
import json
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int

from fer_jax.data.views import labels_of
from fer_jax.errors import UserError
from fer_jax.evaluation import predictions, report
from fer_jax.evaluation.scorecard import Scores
from fer_jax.evaluation.scores import leak_free_accuracy, score
from fer_jax.files import atomic_write
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.models.summary import summarize
from fer_jax.studies.plan import Run
from fer_jax.training.logging import metric_writer


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
  """Results of one recipe with one seed, over all folds if there are folds.

  Attributes:
    recipe: its name in tables.
    seed: random seed of the runs.
    class_names: the columns of `probabilities`.
    probabilities: of every example, by the best epoch of its run.
    targets: labels or distributions.
    example_ids: split, position in the release and digest of the image,
      "validation 28709 0f3a...".
    leaks: which images are in the training split too.
    epochs: the records of evaluated epochs, by run (one run per fold).
    best_epochs: number of each run's best epoch.
    num_parameters: number of the model's parameters.
    macs: multiply-accumulates of one image's forward pass.
    seconds: training time of all runs.
    images_per_second: training speed, the median epoch of the first run.
    workdirs: folders of the runs.
  """

  recipe: str
  seed: int
  class_names: tuple[str, ...]
  probabilities: Float32[np.ndarray, "n k"]
  targets: np.ndarray
  example_ids: np.ndarray
  leaks: Bool[np.ndarray, " n"]
  epochs: list[list[dict[str, Any]]]
  best_epochs: list[int]
  num_parameters: int
  macs: int
  seconds: float
  images_per_second: float
  workdirs: list[pathlib.Path]

  @functools.cached_property
  def scores(self) -> Scores:
    """Scores over all examples."""
    return score(self.probabilities, self.targets, self.class_names)

  @functools.cached_property
  def leak_free_accuracy(self) -> float:
    """Accuracy without the images that are in the training split too."""
    return leak_free_accuracy(self.correct, self.leaks)

  @functools.cached_property
  def labels(self) -> Int[np.ndarray, " n"]:
    """The true classes."""
    return labels_of(self.targets)

  @functools.cached_property
  def correct(self) -> Bool[np.ndarray, " n"]:
    """Which examples are classified correctly."""
    return self.probabilities.argmax(axis=1) == self.labels

  def at_best(self, field: str) -> float:
    """Returns a field of the best epoch's record, averaged over folds."""
    values = [
      next(record[field] for record in records if record["epoch"] == best)
      for records, best in zip(self.epochs, self.best_epochs, strict=True)
    ]
    return float(np.mean(values))


def gather(runs: Sequence[Run], split: str) -> list[Outcome]:
  """Evaluates runs that were not evaluated yet, and gathers all results.

  Every run's own report is written to its workdir. Predictions are stored
  there, so that a second call computes nothing.

  Args:
    runs: trained ones, in order of recipes and seeds.
    split: the split they are compared on.

  Raises:
    UserError: a run cannot be loaded, the split is empty, or the disk is full.
  """
  groups = itertools.groupby(runs, lambda run: (run.recipe, run.seed))
  return [_outcome(list(group), split) for _, group in groups]


def _outcome(runs: list[Run], split: str) -> Outcome:
  found = [_predictions(run, split) for run in runs]
  summaries, epochs = [], []
  for run in runs:
    lines = metric_writer.read(run.workdir)
    summaries.append(lines[-1])
    epochs.append([line for line in lines if line["kind"] == "epoch"])
  joined = {
    name: np.concatenate([one[name] for one in found])
    for name in ("probabilities", "targets", "example_ids", "leaks")
  }
  sizes = json.loads(str(found[0]["sizes"]))
  return Outcome(
    recipe=runs[0].recipe,
    seed=runs[0].seed,
    class_names=tuple(sizes["class_names"]),
    probabilities=joined["probabilities"],
    targets=joined["targets"],
    example_ids=joined["example_ids"],
    leaks=joined["leaks"],
    epochs=epochs,
    best_epochs=[summary["best_epoch"] for summary in summaries],
    num_parameters=sizes["num_parameters"],
    macs=sizes["macs"],
    seconds=sum(summary["seconds"] for summary in summaries),
    images_per_second=summaries[0]["images_per_second"],
    workdirs=[run.workdir for run in runs],
  )


def _predictions(run: Run, split: str) -> dict[str, np.ndarray]:
  """Returns the arrays of a run's predictions, stored or computed."""
  path = run.workdir / "report" / f"{split}_predictions.npz"
  metrics = run.workdir / metric_writer.FILE
  try:
    if path.stat().st_mtime >= metrics.stat().st_mtime:
      with np.load(path, allow_pickle=False) as kept:
        if "example_ids" in kept:  # else of an earlier version
          return dict(kept)
  except (OSError, EOFError, ValueError, zipfile.BadZipFile):
    pass  # Missing or damaged: computed again.
  print(f"evaluating {run} on {split}", flush=True)
  trained = TrainedModel.load(run.workdir)
  predicted = predictions.predict(
    [trained],
    split,
    manual_dir=run.config.dataset.manual_dir,
    data_dir=run.config.dataset.data_dir,
  )
  report.write(report.results_of(predicted), [trained], path.parent)
  fed = trained.config.input
  shape = (fed.image_size, fed.image_size, fed.channels)
  summary = summarize(trained.model, shape)
  arrays: dict[str, Any] = {
    "probabilities": predicted.probabilities,
    "targets": predicted.targets,
    "example_ids": np.array(_example_ids(predicted)),
    "leaks": predicted.leaks,
    "sizes": np.array(
      json.dumps(
        {
          "class_names": list(predicted.class_names),
          "num_parameters": summary.num_parameters,
          "macs": summary.macs,
        }
      )
    ),
  }
  try:
    with atomic_write(path) as temporary:
      np.savez(temporary, **arrays)
  except OSError as e:
    raise UserError(
      f"cannot write {e.filename}: {e.strerror or e}; free disk space, and"
      " rerun the command"
    ) from e
  return arrays


def _example_ids(predicted: predictions.Predictions) -> list[str]:
  """Returns names that only the same image of a split has in two datasets."""
  examples = zip(
    predicted.splits, predicted.rows, predicted.images, strict=True
  )
  return [
    f"{split} {row} {hashlib.sha256(image.tobytes()).hexdigest()[:16]}"
    for split, row, image in examples
  ]
