"""Cross-entropy, its targets and its weights.

The loss of a batch is sum(w * l) / sum(w), where l is the cross-entropy of an
example and w its class weight, or 0 for padding. For hard labels without label
smoothing this equals `torch.nn.CrossEntropyLoss(weight=...)`. Class weights are
relative: scaling all of them does not change the loss. Mixed examples (mixup,
CutMix) have the mixed loss of their pair, each with its own weight.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Float32, Int
from ml_collections import ConfigDict

from fer_jax.errors import choose, require

CLASS_WEIGHTS = ("none", "balanced")
LOSSES = ("cross_entropy", "multi_target")
OUTPUTS = ("softmax", "sigmoid")


def check(config: ConfigDict) -> None:
  """Checks the section `loss` of a configuration.

  Args:
    config: the section.

  Raises:
    UserError: a value is unknown or out of range.
  """
  choose("loss.name", config.name, LOSSES)
  choose("loss.output", config.output, OUTPUTS)
  smoothing = config.label_smoothing
  ok = 0 <= smoothing < 1
  must = "be at least 0 and less than 1"
  require(ok, "loss.label_smoothing", smoothing, must)
  ok = not (smoothing and config.name == "multi_target")
  must = (
    "be 0 with loss.name=multi_target, where it would make every class correct"
  )
  require(ok, "loss.label_smoothing", smoothing, must)
  ok = not (config.teacher and config.name == "multi_target")
  must = "be empty with loss.name=multi_target, which counts votes"
  require(ok, "loss.teacher", config.teacher, must)
  must = "be above 0 and at most 1"
  ok = 0 < config.teacher_weight <= 1
  require(ok, "loss.teacher_weight", config.teacher_weight, must)
  choose("loss.class_weights", config.class_weights, CLASS_WEIGHTS)


def one_hot_targets(
  targets: Int[Array, "b"] | Float[Array, "b k"],
  num_classes: int,
  label_smoothing: float = 0.0,
) -> Float32[Array, "b k"]:
  """Returns targets of either kind as distributions over the classes.

  Label smoothing (Szegedy et al. 2016, section 7) mixes a distribution with
  the uniform one: (1 - s) * target + s / k.

  Args:
    targets: labels `[b]`, or distributions over the classes `[b k]`.
    num_classes: k.
    label_smoothing: s, the weight of the uniform distribution.

  Returns:
    Float32 `[b k]`.

  Raises:
    ValueError: the distributions are over another number of classes.

  >>> one_hot_targets(jnp.array([1]), 2, label_smoothing=0.5).tolist()
  [[0.25, 0.75]]
  """
  if targets.ndim == 1:
    distributions = jax.nn.one_hot(targets, num_classes, dtype=jnp.float32)
  elif targets.shape[-1] == num_classes:
    distributions = targets.astype(jnp.float32)
  else:
    raise ValueError(
      f"targets of {targets.shape[-1]} classes where {num_classes} are expected"
    )
  if label_smoothing:
    distributions = optax.losses.smooth_labels(distributions, label_smoothing)
  return distributions


def balanced_class_weights(
  targets: Int[np.ndarray, "n"] | Float[np.ndarray, "n k"], num_classes: int
) -> Float32[np.ndarray, "k"]:
  """Returns weights that balance the classes: n / (k * examples of the class).

  A class without examples gets 0: the formula's infinity would turn
  `targets @ weights` into NaN (0 * inf) for every example.

  Args:
    targets: training labels `[n]`, or distributions `[n k]`, which count for
      each class in proportion.
    num_classes: k.

  Returns:
    Float32 `[k]`.

  Raises:
    ValueError: a label is not in 0 .. k - 1, or the distributions are over
      another number of classes.

  >>> balanced_class_weights(np.array([0, 0, 0, 0, 1, 1]), 3).tolist()
  [0.5, 1.0, 0.0]
  """
  if targets.ndim == 1:
    if targets.size and not 0 <= targets.min() <= targets.max() < num_classes:
      raise ValueError(
        f"labels {targets.min()} .. {targets.max()} where 0 .. "
        f"{num_classes - 1} are expected"
      )
    counts = np.bincount(targets, minlength=num_classes).astype(np.float64)
  else:
    if targets.shape[1] != num_classes:
      raise ValueError(
        f"targets of {targets.shape[1]} classes where {num_classes} are"
        " expected"
      )
    counts = targets.sum(axis=0, dtype=np.float64)
  weights = np.zeros(num_classes)
  present = counts > 0
  weights[present] = len(targets) / (num_classes * counts[present])
  return weights.astype(np.float32)


def example_weights(
  targets: Int[Array, "b"] | Float[Array, "b k"],
  class_weights: Float[Array, "k"] | Sequence[float] | None = None,
) -> Float32[Array, "b"]:
  """Returns the weight of each example of a batch.

  Args:
    targets: labels `[b]` or distributions `[b k]`, before label smoothing, so
      that the weights do not depend on it.
    class_weights: weights `[k]`; the weight of a distribution is
      `targets @ class_weights`. None: all weights are 1.

  Returns:
    Float32 `[b]`.
  """
  if class_weights is None:
    return jnp.ones(targets.shape[:1], jnp.float32)
  if targets.ndim == 1:
    return jnp.asarray(class_weights, jnp.float32)[targets]
  # A product and a sum: a float32 matmul is rounded on GPU (TF32) and TPU.
  rows = jnp.asarray(class_weights, jnp.float32)[None, :]
  return (targets.astype(jnp.float32) * rows).sum(axis=-1)


def to_output(
  logits: Float[Array, "b k"], output: str
) -> Float32[Array, "b k"]:
  """Returns logits whose softmax is the model's output.

  Args:
    logits: `[b k]`; half precision is cast first.
    output: "softmax" keeps them; "sigmoid" gives the output s_k / sum_j s_j,
      where s is the sigmoid of the logits, as Keras does for sigmoid outputs
      with categorical cross-entropy (used by Jiang et al.). The order of
      classes is the same.

  Returns:
    Float32 `[b k]`.

  >>> jax.nn.softmax(to_output(jnp.array([[0.0, -100.0]]), "sigmoid")).tolist()
  [[1.0, 0.0]]
  """
  logits = logits.astype(jnp.float32)
  return jax.nn.log_sigmoid(logits) if output == "sigmoid" else logits


def per_example(
  logits: Float[Array, "b k"],
  targets: Float32[Array, "b k"],
  weights: Float[Array, "b"] | None = None,
  name: str = "cross_entropy",
) -> Float32[Array, "b"]:
  """Returns the loss of each example, in float32.

  Args:
    logits: `[b k]`; half precision is cast before the softmax.
    targets: distributions over the classes `[b k]`, see `one_hot_targets`.
    weights: factors of the losses `[b]`; weight 0 gives loss 0 and no gradient,
      even if the loss is not finite. None: all 1.
    name: one of `LOSSES`: "cross_entropy" is -sum_k t_k log p_k,
      "multi_target" is -log max_k p_k over the classes with t_k > 0, any of
      which is correct (Barsoum et al. 2016, section 4.2).

  Returns:
    Float32 `[b]`.
  """
  logits = logits.astype(jnp.float32)
  loss_fn = _multi_target if name == "multi_target" else _cross_entropy
  if weights is None:
    return loss_fn(logits, targets)
  # Masked twice: 0 * inf is NaN, in the value and in the gradient.
  counts = weights > 0
  losses = loss_fn(jnp.where(counts[:, None], logits, 0.0), targets)
  return jnp.where(counts, weights * losses, 0.0)


def _cross_entropy(logits: Array, targets: Array) -> Array:
  return optax.losses.softmax_cross_entropy(logits, targets)


def _multi_target(logits: Array, targets: Array) -> Array:
  log_p = jax.nn.log_softmax(logits)
  # By index, not `max`: its gradient divides by the number of values equal to
  # it, which is 0 if XLA recomputes them with another rounding.
  best = jnp.argmax(jnp.where(targets > 0, log_p, -jnp.inf), axis=-1)
  return -jnp.take_along_axis(log_p, best[:, None], axis=-1)[:, 0]


def weighted_mean(
  losses: Float32[Array, "b"],
  weights: Float[Array, "b"],
  axis_name: str | None = None,
) -> Float32[Array, ""]:
  """Returns a device's part of the loss of the global batch.

  Devices hold equally many examples, but not equal sums of weights (padding,
  rare classes), so that the mean of their own means would be wrong. Each
  therefore divides by the same number, the mean over the devices of the sums of
  weights. The `pmean` of these parts is sum(w * l) / sum(w) over the global
  batch, and the `pmean` of their gradients is its gradient.

  With gradient accumulation every batch counts equally, whatever the sum of its
  weights is.

  Args:
    losses: weighted losses `[b]`, as `per_example(..., weights)` returns them.
    weights: the same weights `[b]`.
    axis_name: the axis of the devices; None on one device.

  Returns:
    A float32 scalar; 0 if all weights are 0.
  """
  total = weights.astype(jnp.float32).sum()
  if axis_name is not None:
    total = jax.lax.pmean(total, axis_name)
  return losses.sum() / jnp.where(total > 0, total, 1.0)
