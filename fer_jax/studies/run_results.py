"""What became of the runs of a study, gathered by recipe and seed."""

import dataclasses
import functools
import itertools
import json
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int

from fer_jax.data.views import labels_of
from fer_jax.evaluation import predictions, report
from fer_jax.evaluation.scorecard import Scores
from fer_jax.evaluation.scores import score
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.models.summary import summarize
from fer_jax.studies.plan import Run
from fer_jax.training.logging import metric_writer


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
  """One recipe with one seed; of all folds together where there are folds.

  Attributes:
    recipe: its name in tables.
    seed: of the run.
    class_names: what columns of probabilities stand for.
    probabilities: of every row, by the run's best epoch.
    targets: labels or distributions.
    rows: what tells rows apart, "validation 28709".
    leaks: which images also stand in the training split.
    epochs: the records of every epoch, run by run (one run a fold).
    best_epochs: of every run.
    num_parameters: of the model.
    macs: multiply-accumulates of one image, forward.
    seconds: of training, all runs.
    images_per_second: of training, the median epoch of the first run.
    workdirs: of the runs.
  """

  recipe: str
  seed: int
  class_names: tuple[str, ...]
  probabilities: Float32[np.ndarray, "n k"]
  targets: np.ndarray
  rows: np.ndarray
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
    """Of all rows."""
    return score(self.probabilities, self.targets, self.class_names)

  @functools.cached_property
  def leak_free_accuracy(self) -> float:
    """Of the rows whose image is not in the training split too."""
    return (
      float(self.correct[~self.leaks].mean())
      if self.leaks.any()
      else (self.scores.accuracy)
    )

  @functools.cached_property
  def labels(self) -> Int[np.ndarray, " n"]:
    """The true classes."""
    return labels_of(self.targets)

  @functools.cached_property
  def correct(self) -> Bool[np.ndarray, " n"]:
    """Which rows are right."""
    return self.probabilities.argmax(axis=1) == self.labels

  def at_best(self, field: str) -> float:
    """A field of the best epoch's record, the mean over folds."""
    values = [
      epochs[best - 1][field]
      for epochs, best in zip(self.epochs, self.best_epochs, strict=True)
    ]
    return float(np.mean(values))


def gather(runs: Sequence[Run], split: str) -> list[Outcome]:
  """Evaluates what has not been evaluated yet, and gathers all.

  Every run's own report is written beside it. Predictions are kept there, so
  that a second call computes nothing.

  Args:
    runs: all trained, in order.
    split: what they are compared on.

  Raises:
    UserError: a run cannot be loaded, or the split has no rows.
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
    for name in ("probabilities", "targets", "rows", "leaks")
  }
  sizes = json.loads(str(found[0]["sizes"]))
  return Outcome(
    recipe=runs[0].recipe,
    seed=runs[0].seed,
    class_names=tuple(sizes["class_names"]),
    **joined,
    epochs=epochs,
    best_epochs=[summary["best_epoch"] for summary in summaries],
    num_parameters=sizes["num_parameters"],
    macs=sizes["macs"],
    seconds=sum(summary["seconds"] for summary in summaries),
    images_per_second=summaries[0]["images_per_second"],
    workdirs=[run.workdir for run in runs],
  )


def _predictions(run: Run, split: str) -> dict[str, np.ndarray]:
  """The arrays of a run's predictions, kept or computed."""
  path = run.workdir / "report" / f"{split}_predictions.npz"
  metrics = run.workdir / metric_writer.FILE
  try:
    if path.stat().st_mtime >= metrics.stat().st_mtime:
      with np.load(path, allow_pickle=False) as kept:
        return dict(kept)
  except (OSError, ValueError, zipfile.BadZipFile):
    pass  # Not there, or half written.
  print(f"evaluating {run} on {split}", flush=True)
  trained = TrainedModel.load(run.workdir)
  predicted = predictions.predict(
    [trained],
    split,
    manual_dir=run.config.dataset.manual_dir,
    data_dir=run.config.dataset.data_dir,
  )
  report.write(report.results_of(predicted), [trained], path.parent)
  size = run.config.input.image_size
  summary = summarize(trained.model, (size, size, run.config.input.channels))
  rows = zip(predicted.splits, predicted.rows, strict=True)
  arrays: dict[str, Any] = {
    "probabilities": predicted.probabilities,
    "targets": predicted.targets,
    "rows": np.array([f"{name} {row}" for name, row in rows]),
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
  draft = path.with_name(path.name + ".tmp.npz")
  np.savez(draft, **arrays)
  draft.replace(path)
  return arrays
