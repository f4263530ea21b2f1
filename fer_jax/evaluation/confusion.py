"""Confusion matrices: counting, scores by class, order of the classes.

Rows are true classes, columns predicted classes.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Num


def count_confusion(
  labels: Int[np.ndarray, " n"],
  predicted: Int[np.ndarray, " n"],
  num_classes: int,
) -> Int[np.ndarray, "k k"]:
  """Returns a confusion matrix.

  Args:
    labels: true classes, 0 to k - 1.
    predicted: predicted classes, 0 to k - 1.
    num_classes: k.

  >>> count_confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
  array([[1, 1],
         [0, 1]])
  """
  shape = num_classes, num_classes
  cells = np.ravel_multi_index((labels, predicted), shape)
  return np.bincount(cells, minlength=num_classes**2).reshape(shape)


def scores_by_class(
  confusion: Num[np.ndarray, "*b k k"],
) -> dict[str, Float[np.ndarray, "*b k"]]:
  """Computes the scores of each class.

  Args:
    confusion: counts, which may be fractions; each matrix has at least one
      example.

  Returns:
    `precision`, `recall`, `f1` and one-vs-rest `accuracy` of each class. One
    that is a fraction of nothing, as the recall of a class without examples,
    is 0.

  >>> found = scores_by_class(np.array([[3, 1], [0, 4]]))
  >>> found["precision"].tolist(), found["recall"].tolist()
  ([1.0, 0.8], [0.75, 1.0])
  """
  right = np.diagonal(confusion, axis1=-2, axis2=-1)
  support, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
  num_examples = support.sum(axis=-1, keepdims=True)
  return {
    "precision": _fraction(right, predicted),
    "recall": _fraction(right, support),
    "f1": _fraction(2 * right, support + predicted),
    "accuracy": 1 - (support + predicted - 2 * right) / num_examples,
  }


def averages(
  by_class: dict[str, Float[np.ndarray, " k"]], support: Num[np.ndarray, " k"]
) -> tuple[dict[str, float], dict[str, float]]:
  """Returns macro and weighted averages over the classes with examples.

  Args:
    by_class: of `scores_by_class`, for one matrix.
    support: number of examples of each class.

  Returns:
    `precision`, `recall` and `f1` of both.
  """
  macro, weighted = (
    {
      name: float(np.average(by_class[name], weights=weights))
      for name in ("precision", "recall", "f1")
    }
    for weights in (support > 0, support)
  )
  return macro, weighted


def _fraction(
  part: Num[np.ndarray, "*b k"], whole: Num[np.ndarray, "*b k"]
) -> Float[np.ndarray, "*b k"]:
  return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


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
