"""Scores of predictions: accuracy, F1, calibration, intervals."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int

from fer_jax.data.views import labels_of
from fer_jax.evaluation import intervals
from fer_jax.evaluation.calibration import calibrate
from fer_jax.evaluation.confusion import (
  averages,
  count_confusion,
  scores_by_class,
)
from fer_jax.evaluation.scorecard import Averages, ClassScores, Scores

# A float32 softmax can be exactly 0. Its loss is computed as for this, 87.3.
_MIN_PROBABILITY = float(np.finfo(np.float32).tiny)


def score(
  probabilities: Float[np.ndarray, "n k"],
  targets: Int[np.ndarray, " n"] | Float[np.ndarray, "n k"],
  class_names: Sequence[str],
  *,
  num_bootstrap: int = 1000,
  seed: int = 0,
) -> Scores:
  """Computes the scores of predictions.

  Ties between probabilities, and between votes, are resolved to the first
  class, as in training.

  Args:
    probabilities: predicted probability of each class for each example.
    targets: labels, or distributions over the classes.
    class_names: k names.
    num_bootstrap: number of resamples for the intervals; 0 for no intervals.
    seed: seed of the resamples.

  Raises:
    ValueError: there are no examples, or the probabilities or targets are
      invalid; the message states which and the first invalid example.

  >>> found = score(
  ...   np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]), ["sad", "happy"]
  ... )
  >>> found.accuracy, found.confusion.tolist()
  (0.5, [[1, 0], [1, 0]])
  """
  num_classes = len(class_names)
  p, t = _checked(probabilities, targets, num_classes)
  if num_bootstrap < 0:
    raise ValueError(f"num_bootstrap={num_bootstrap} must be at least 0")
  # Stable, so that the first column is the argmax.
  ranked = np.argsort(-p, axis=1, kind="stable")
  labels, predicted = labels_of(t), ranked[:, 0]
  losses = -(t * np.log(np.maximum(p, _MIN_PROBABILITY))).sum(axis=1)

  confusion = count_confusion(labels, predicted, num_classes)
  by_class, support = scores_by_class(confusion), confusion.sum(axis=1)
  macro, weighted = (Averages(**means) for means in averages(by_class, support))
  for name in ("recall", "f1"):
    by_class[name] = np.where(support > 0, by_class[name], math.nan)
  found = {}
  if num_bootstrap:
    found = intervals.bootstrap(
      labels,
      predicted,
      losses,
      num_classes,
      num_resamples=num_bootstrap,
      seed=seed,
    )
  return Scores(
    class_names=tuple(class_names),
    targets="labels" if np.ndim(targets) == 1 else "distributions",
    num_images=len(p),
    loss=float(losses.mean()),
    accuracy=float((predicted == labels).mean()),
    balanced_accuracy=macro.recall,
    top2_accuracy=float((ranked[:, :2] == labels[:, None]).any(axis=1).mean()),
    brier_score=float(((p - t) ** 2).sum(axis=1).mean()),
    per_class=tuple(
      ClassScores(
        class_names[k],
        support=int(support[k]),
        **{name: float(of[k]) for name, of in by_class.items()},
      )
      for k in range(num_classes)
    ),
    macro=macro,
    weighted=weighted,
    calibration=calibrate(p.max(axis=1), predicted == labels),
    confusion=confusion,
    intervals=found,
    num_bootstrap=num_bootstrap,
    seed=seed,
  )


def leak_free_accuracy(
  right: Bool[np.ndarray, " n"], leaks: Bool[np.ndarray, " n"]
) -> float:
  """Returns accuracy without the images that are in the training split too.

  If all of them are, accuracy over all.

  Args:
    right: which examples are classified correctly.
    leaks: which examples' images are in the training split too.
  """
  kept = np.ones_like(leaks) if leaks.all() else ~leaks
  return float(right[kept].mean())


def _checked(
  probabilities: np.ndarray, targets: np.ndarray, num_classes: int
) -> tuple[Float64[np.ndarray, "n k"], Float64[np.ndarray, "n k"]]:
  """Returns both as distributions in float64."""
  probabilities, targets = np.asarray(probabilities), np.asarray(targets)
  p = _distributions("probabilities", probabilities, num_classes)
  if len(targets) != len(p):
    raise ValueError(f"{len(targets)} targets for {len(p)} predictions")
  if targets.ndim != 1:
    return p, _distributions("targets", targets, num_classes)
  if not np.issubdtype(targets.dtype, np.integer):
    raise ValueError(f"targets of type {targets.dtype}: labels are integers")
  if not 0 <= targets.min() <= targets.max() < num_classes:
    raise ValueError(
      f"targets {targets.min()} .. {targets.max()} where labels"
      f" 0 .. {num_classes - 1} are expected"
    )
  return p, np.eye(num_classes)[targets]


def _distributions(
  name: str, values: np.ndarray, num_classes: int
) -> Float64[np.ndarray, "n k"]:
  """Returns the values in float64, checked to be distributions."""
  if values.ndim != 2 or values.shape[1] != num_classes or not len(values):
    raise ValueError(
      f"{name} of shape {values.shape} where (n, {num_classes}), n at least 1,"
      " is expected"
    )
  values = values.astype(np.float64)
  for invalid, problem in (
    (~np.isfinite(values).all(axis=1), "are not finite"),
    ((values < 0).any(axis=1), "are below 0: are they logits?"),
    (abs(values.sum(axis=1) - 1) > 1e-3, "do not sum to 1"),
  ):
    if invalid.any():
      row = int(invalid.argmax())
      shown = ", ".join(f"{value:.4g}" for value in values[row])
      raise ValueError(f"{name} of example {row} {problem}: {shown}")
  return values
