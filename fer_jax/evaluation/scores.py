"""Scores of predictions: accuracy, F1, calibration, intervals."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64, Int

from fer_jax.data.views import labels_of
from fer_jax.evaluation import intervals
from fer_jax.evaluation.calibration import calibrate
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
  # Takes more than a second to import.
  from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

  p, t = _checked(probabilities, targets, len(class_names))
  if num_bootstrap < 0:
    raise ValueError(f"num_bootstrap={num_bootstrap} must be at least 0")
  (num_images, num_classes), classes = p.shape, np.arange(p.shape[1])
  # Stable, so that the first column is the argmax.
  ranked = np.argsort(-p, axis=1, kind="stable")
  labels, predicted = labels_of(t), ranked[:, 0]
  losses = -(t * np.log(np.maximum(p, _MIN_PROBABILITY))).sum(axis=1)

  confusion = confusion_matrix(labels, predicted, labels=classes)
  precision, recall, f1, support = precision_recall_fscore_support(
    labels, predicted, labels=classes, zero_division=0
  )
  present = support > 0
  recall, f1 = (np.where(present, of, math.nan) for of in (recall, f1))
  right = np.diagonal(confusion)
  wrong = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * right
  one_vs_rest = 1 - wrong / num_images

  macro, weighted = (
    Averages(
      *(
        float(np.average(of[present], weights=weights[present]))
        for of in (precision, recall, f1)
      )
    )
    for weights in (np.ones(num_classes), support)
  )
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
  columns = (precision, recall, f1, one_vs_rest, support)
  numbers = zip(*(of.tolist() for of in columns), strict=True)
  return Scores(
    class_names=tuple(class_names),
    targets="labels" if np.ndim(targets) == 1 else "distributions",
    num_images=num_images,
    loss=float(losses.mean()),
    accuracy=float((predicted == labels).mean()),
    balanced_accuracy=macro.recall,
    top2_accuracy=float((ranked[:, :2] == labels[:, None]).any(axis=1).mean()),
    brier_score=float(((p - t) ** 2).sum(axis=1).mean()),
    per_class=tuple(
      ClassScores(name, *of)
      for name, of in zip(class_names, numbers, strict=True)
    ),
    macro=macro,
    weighted=weighted,
    calibration=calibrate(p.max(axis=1), predicted == labels),
    confusion=confusion,
    intervals=found,
    num_bootstrap=num_bootstrap,
    seed=seed,
  )


def reorder(
  confusion: Int[np.ndarray, "k k"],
  class_names: Sequence[str],
  order: Sequence[str],
) -> Int[np.ndarray, "k k"]:
  """Returns a confusion matrix with its classes in another order.

  Most papers on FER2013 print the order `sorted(class_names)`, where neutral
  is 4, sad 5 and surprise 6.

  Args:
    confusion: counts, in the order of `class_names`.
    class_names: k names.
    order: the same names in the desired order.

  Raises:
    ValueError: `order` has other names.

  >>> reorder(np.array([[1, 2], [3, 4]]), ["sad", "happy"], ["happy", "sad"])
  array([[4, 3],
         [2, 1]])
  """
  if sorted(order) != sorted(class_names):
    raise ValueError(
      f"order {', '.join(order)} is not a permutation of the classes"
      f" {', '.join(class_names)}"
    )
  indices = [list(class_names).index(name) for name in order]
  return np.asarray(confusion)[np.ix_(indices, indices)]


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
