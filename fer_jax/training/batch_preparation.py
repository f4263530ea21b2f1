"""Prepares batches on the device: images and targets as the model sees them."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int, Key
from ml_collections import ConfigDict

from fer_jax.data import normalization
from fer_jax.data.transforms import augmentation, mixup
from fer_jax.ops import dispatch
from fer_jax.training import losses

# {"index": indices into the device arrays} or {"image", "target"}; in
# evaluation also "mask".
Batch = dict[str, Array]

# Padding a split copies it.
_MOST_PADDING, _LARGEST_PADDED = 2**24, 2**30  # bytes


class TrainingBatch(NamedTuple):
  """A batch as the model and the loss see it.

  Attributes:
    images: augmented and normalized.
    targets: a distribution over the classes for each image.
    loss_targets: these in the loss; they differ if images of classes with
      unequal weights are mixed.
    weights: of each image in the loss.
  """

  images: Float[Array, "b h w c"]
  targets: Float[Array, "b k"]
  loss_targets: Float[Array, "b k"]
  weights: Float[Array, " b"]


class ImageRows(struct.PyTreeNode):
  """Images of a split, one row of pixels each.

  A TPU stores an array in tiles of its last two dimensions, so that images of
  48x48 pixels take more than twice their size, and XLA converts the whole
  split at every step to gather from it. Rows are stored as they are.

  Attributes:
    rows: `[n h*w*c]`.
    shape: h, w, c.
  """

  rows: Any
  shape: tuple[int, ...] = struct.field(pytree_node=False)

  def __getitem__(self, index: Int[Array, " b"]) -> Array:
    """Returns images `[b h w c]`."""
    return self.rows[index].reshape(-1, *self.shape)


def arrange_split(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Returns images and targets of a split as `gather` reads them fastest.

  On accelerators, where a step takes long to compile, zeros follow the
  examples: programs depend on shapes, and splits of similar sizes (folds, or a
  folder with one photo more) share them. No index reaches the zeros.

  Args:
    arrays: with "image" and "target", on the host.
  """
  image, target = arrays["image"], arrays["target"]
  if not dispatch.on_accelerator():
    return {"image": image, "target": target}
  rows = image.reshape(len(image), math.prod(image.shape[1:]))
  if rows.nbytes <= _LARGEST_PADDED:
    most = min(4096, max(1, _MOST_PADDING // rows.shape[1]))
    multiple = 1 << most.bit_length() - 1  # a power of two
    padding = -len(rows) % multiple
    rows, target = (
      np.pad(x, ((0, padding), *[(0, 0)] * (x.ndim - 1)))
      for x in (rows, target)
    )
  return {"image": ImageRows(rows, image.shape[1:]), "target": target}


def gather(data: Any, batch: Batch) -> tuple[Array, Array]:
  """Returns images and targets of a batch, gathered by index if need be.

  Args:
    data: the split's arrays on the device; {} if batches hold images.
    batch: this device's part of a batch.
  """
  if "image" in batch:
    return batch["image"], batch["target"]
  index = batch["index"]
  return data["image"][index], data["target"][index]


@jax.named_scope("input")
def prepare_training_batch(
  rng: Key[Array, ""],
  images: Array,
  labels: Array,
  config: ConfigDict,
  num_classes: int,
  axis_name: str | None,
  class_weights: Sequence[float] | None = None,
) -> TrainingBatch:
  """Returns augmented, normalized images and their soft targets.

  Where images are mixed, each brings its own weight into the loss: the mixed
  example has the loss l * w_i * CE(t_i) + (1 - l) * w_j * CE(t_j), of images i
  and j with weights w and targets t. Otherwise a rare class would keep less
  than its part of the loss.

  Args:
    rng: the key of this step; the same on every device.
    images: uint8 images as the dataset stores them.
    labels: labels `[b]` or distributions `[b k]`.
    config: the whole configuration.
    num_classes: k.
    axis_name: the axis of the devices; None on one device.
    class_weights: weight of each class in the loss; None: equal weights.
  """
  augment_rng, mix_rng = jax.random.split(jax.random.fold_in(rng, 0))
  images = normalization.to_float(images, config.input.channels)
  options = augmentation.Augmentation(**config.augment)
  if augmentation.any_on(options):
    # Each image is augmented by its position in the global batch, whatever
    # device it is on.
    positions = jnp.arange(images.shape[0])
    if axis_name:
      positions += jax.lax.axis_index(axis_name) * images.shape[0]
    images = augmentation.augment(
      augment_rng,
      images,
      positions,
      options,
      products=dispatch.platform() == "tpu",
    )
  targets = losses.one_hot_targets(
    labels, num_classes, config.loss.label_smoothing
  )
  images = normalization.resize(images, config.input.image_size)
  images = normalization.normalize(
    images, config.input.normalization, config.input.mean, config.input.std
  )
  mix = functools.partial(
    mixup.mix, mix_rng, images, mixup=options.mixup, cutmix=options.cutmix
  )
  if class_weights is None or not (options.mixup or options.cutmix):
    images, targets = mix(targets)
    weights = losses.example_weights(labels, class_weights)
    return TrainingBatch(images, targets, targets, weights)
  weights = losses.example_weights(labels, class_weights)
  weighted = weights[:, None] * targets
  images, mixed = mix(jnp.concatenate([targets, weighted], axis=1))
  targets, weighted = jnp.split(mixed, 2, axis=1)
  weights = weighted.sum(axis=1)
  divisor = jnp.where(weights > 0, weights, 1.0)
  return TrainingBatch(images, targets, weighted / divisor[:, None], weights)
