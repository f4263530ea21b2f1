"""Loss and accuracy as sums and a count, which stay on the device.

Sums over batches, steps and devices add up exactly as one large batch would, so
the mean is computed once, on the host, when it is logged.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int


class Metrics(struct.PyTreeNode):
  """Sums over the images seen so far.

  Attributes:
    loss: sum of the losses, a float32 scalar.
    correct: images whose highest logit is the target's class.
    count: images. Both are int32, exact up to two billion images.
  """

  # Any, since JAX also builds this tree of shapes, specs and axes.
  loss: Any
  correct: Any
  count: Any

  @classmethod
  def zeros(cls) -> "Metrics":
    """Returns metrics of no images, to start from, on the host."""
    return cls(loss=np.float32(0), correct=np.int32(0), count=np.int32(0))

  @classmethod
  def from_batch(
    cls,
    logits: Float[Array, "b k"],
    targets: Int[Array, "b"] | Float[Array, "b k"],
    per_example_loss: Float[Array, "b"],
    mask: Bool[Array, "b"] | Float[Array, "b"] | None = None,
  ) -> "Metrics":
    """Returns the sums over one batch.

    Args:
      logits: `[b k]`.
      targets: labels `[b]` or distributions `[b k]`.
      per_example_loss: `[b]`, without class weights, so that the logged means
        of runs with different weights can be compared.
      mask: True (or 1) for images that count, False (or 0) for padding, which
        may be anything. None: all images count.

    Returns:
      Scalars.
    """
    counts = jnp.ones(logits.shape[:1], bool)
    if mask is not None:
      counts = mask.astype(bool)
    losses = jnp.where(counts, per_example_loss.astype(jnp.float32), 0.0)
    return cls(
      loss=losses.sum(),
      correct=jnp.sum(counts & correct(logits, targets), dtype=jnp.int32),
      count=jnp.sum(counts, dtype=jnp.int32),
    )

  def add(self, other: "Metrics") -> "Metrics":
    """Returns the sums of both."""
    return jax.tree.map(jnp.add, self, other)

  def psum(self, axis_name: str) -> "Metrics":
    """Returns the sums over all devices of an axis, on each of them."""
    return jax.lax.psum(self, axis_name)

  def compute(self) -> dict[str, float]:
    """Returns means over the images; waits for the device.

    Returns:
      `loss` and `accuracy` (0..1).

    Raises:
      ValueError: no image was counted.
    """
    sums = jax.device_get(self)
    count = int(sums.count)
    if count == 0:
      raise ValueError("no image was counted: the mean is undefined")
    return {
      "loss": float(sums.loss) / count,
      "accuracy": int(sums.correct) / count,
    }


def correct(
  logits: Float[Array, "b k"],
  targets: Int[Array, "b"] | Float[Array, "b k"],
) -> Bool[Array, "b"]:
  """Returns whether the highest logit is the target's class.

  Args:
    logits: `[b k]`.
    targets: labels `[b]`, or distributions `[b k]`, whose class is the one with
      most votes. Ties, in logits and votes, are won by the first.

  Returns:
    `[b]`.

  >>> correct(jnp.array([[0.1, 0.9]]), jnp.array([[0.4, 0.6]])).tolist()
  [True]
  """
  labels = targets if targets.ndim == 1 else jnp.argmax(targets, axis=-1)
  return jnp.argmax(logits, axis=-1) == labels
