"""Expected calibration error (ECE).

Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2; the
number of bins is that of its section 5.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float

NUM_BINS = 15


@dataclasses.dataclass(frozen=True)
class Bin:
  """Examples whose confidence, the highest probability, is in (low, high].

  Attributes:
    low: lower edge.
    high: upper edge.
    count: number of examples.
    confidence: their mean confidence; nan if there are none.
    accuracy: fraction predicted correctly; nan if there are none.
  """

  low: float
  high: float
  count: int
  confidence: float
  accuracy: float


@dataclasses.dataclass(frozen=True)
class Calibration:
  """Agreement of confidence and accuracy.

  Attributes:
    error: expected calibration error: |accuracy - confidence| of each bin,
      averaged over the examples.
    bins: bins of equal width, from 0 to 1.
  """

  error: float
  bins: tuple[Bin, ...]


def calibrate(
  confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"]
) -> Calibration:
  """Computes the calibration error over `NUM_BINS` bins of the confidence.

  Args:
    confidence: highest probability of each example.
    right: whether the most probable class of each example is correct.

  >>> found = calibrate(np.array([0.9, 0.9]), np.array([True, False]))
  >>> round(found.error, 3), found.bins[13].count
  (0.4, 2)
  """
  edges = np.linspace(0, 1, NUM_BINS + 1)
  indices = np.digitize(confidence, edges[1:-1], right=True)
  counts, confidences, rights = (
    np.bincount(indices, weights=weights, minlength=NUM_BINS)
    for weights in (np.ones(len(indices)), confidence, right)
  )
  means = np.full((2, NUM_BINS), math.nan)
  filled = counts > 0
  means[:, filled] = np.stack((confidences, rights))[:, filled] / counts[filled]
  return Calibration(
    error=float(abs(rights - confidences).sum() / len(indices)),
    bins=tuple(
      Bin(float(low), float(high), int(count), float(mean), float(accuracy))
      for low, high, count, mean, accuracy in zip(
        edges[:-1], edges[1:], counts, *means, strict=True
      )
    ),
  )
