"""Loss and accuracy as sums and a count, which stay on the device.

Sums of batches, steps and devices add up exactly as one large batch would, so
the mean is taken once, on the host, when it is logged.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int


class Sums(struct.PyTreeNode):
  """Sums over the images seen so far.

  Attributes:
    loss: sum of the losses, a float32 scalar.
    correct: images whose highest logit is the target's class.
    count: images. Both are int32: exact to two thousand million images.
  """

  # Any: JAX also builds this tree of specs, axes and stacked arrays.
  loss: Any
  correct: Any
  count: Any

  @classmethod
  def zeros(cls) -> "Sums":
    """Sums of nothing, what accumulation starts from."""
    return cls(
      loss=jnp.zeros((), jnp.float32),
      correct=jnp.zeros((), jnp.int32),
      count=jnp.zeros((), jnp.int32),
    )

  @classmethod
  def from_batch(
    cls,
    logits: Float[Array, "b k"],
    targets: Int[Array, "b"] | Float[Array, "b k"],
    per_example_loss: Float[Array, "b"],
    mask: Bool[Array, "b"] | Float[Array, "b"] | None = None,
  ) -> "Sums":
    """Sums of one batch.

    Args:
      logits: `[b k]`.
      targets: labels `[b]` or distributions `[b k]`.
      per_example_loss: `[b]`, without class weights: the mean that is logged
        is over images, so runs with other weights can be compared.
      mask: 1 or True for an image that counts, 0 or False for one that pads
        and may hold anything. None: all count.

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

  def add(self, other: "Sums") -> "Sums":
    """Sums of both."""
    return jax.tree.map(jnp.add, self, other)

  def psum(self, axis_name: str) -> "Sums":
    """Sums over all devices of an axis, the same on each."""
    return jax.lax.psum(self, axis_name)

  def compute(self) -> dict[str, float]:
    """Means over the images; waits for the device.

    Returns:
      `loss` and `accuracy` (0..1).

    Raises:
      ValueError: no image was counted, so there is no mean.
    """
    sums = jax.device_get(self)
    count = int(sums.count)
    if count == 0:
      raise ValueError("no image was counted: there is no mean")
    return {
      "loss": float(sums.loss) / count,
      "accuracy": int(sums.correct) / count,
    }


def correct(
  logits: Float[Array, "b k"],
  targets: Int[Array, "b"] | Float[Array, "b k"],
) -> Bool[Array, "b"]:
  """Whether the highest logit is the target's class.

  Args:
    logits: `[b k]`.
    targets: labels `[b]`, or distributions `[b k]` whose class is the one with
      most votes. Of equals, in logits and votes, the first is taken.

  Returns:
    `[b]`.

  >>> correct(jnp.array([[0.1, 0.9]]), jnp.array([[0.4, 0.6]])).tolist()
  [True]
  """
  labels = targets if targets.ndim == 1 else jnp.argmax(targets, axis=-1)
  return jnp.argmax(logits, axis=-1) == labels
