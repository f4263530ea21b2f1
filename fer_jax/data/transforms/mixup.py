"""Mixing pairs of images and their targets: mixup and CutMix."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict
from scipy import special


def mix(
  rng: Key[Array, ""],
  images: Float[Array, "b h w c"],
  targets: Float[Array, "b k"],
  config: ConfigDict,
) -> tuple[Float[Array, "b h w c"], Float[Array, "b k"]]:
  """Mixes every image with its neighbour, as `mixup` and `cutmix` say.

  With both on, each step takes one of them, either as likely as the other.
  One lambda (and one rectangle) holds for the batch, as in both papers' code.

  The partner is the neighbour in the batch: images 0 and 1 mix with each
  other, 2 and 3, and so on; the last one of an odd number stays as it is. The
  order of an epoch is random, so neighbours are random pairs. Under data
  parallelism the partner is in the same device's share, and with the same key
  on all devices n of them give what one does where a share is a run of an
  even number of rows.

  Args:
    rng: the step's key, the same on all devices, used for nothing else.
    images: the images.
    targets: a distribution over the classes for each image.
    config: the `augment` section.

  Returns:
    Mixed images and targets, or both unchanged where neither is on.
  """
  if not (config.mixup or config.cutmix):
    return images, targets
  lambda_rng, box_rng, choice_rng = jax.random.split(rng, 3)
  _, h, w, _ = images.shape
  weight = None
  if config.mixup:
    weight = jnp.full((h, w), beta(lambda_rng, config.mixup))
  if config.cutmix:
    kept = cutmix_mask(box_rng, beta(lambda_rng, config.cutmix), (h, w))
    if weight is None:
      weight = kept
    else:
      weight = jnp.where(jax.random.bernoulli(choice_rng), weight, kept)
  assert weight is not None
  return blend(images, targets, weight)


def blend(
  images: Float[Array, "b h w c"],
  targets: Float[Array, "b k"],
  weight: Float[Array, "h w"],
) -> tuple[Float[Array, "b h w c"], Float[Array, "b k"]]:
  """Blends neighbours: `weight` of an image, `1 - weight` of its partner.

  Args:
    images: the images.
    targets: a distribution over the classes for each image.
    weight: of each pixel, the same in all images; the targets are weighted
      with its mean, lambda.

  Returns:
    Blended images and targets, in their dtypes.
  """
  b = images.shape[0]
  partner = np.minimum(np.arange(b) ^ 1, b - 1)
  pixel = weight.astype(images.dtype)[None, :, :, None]
  share = weight.mean().astype(targets.dtype)
  return (
    images * pixel + images[partner] * (1 - pixel),
    targets * share + targets[partner] * (1 - share),
  )


def cutmix_mask(
  rng: Key[Array, ""], keep: Float[Array, ""], size: tuple[int, int]
) -> Float[Array, "h w"]:
  """Draws the rectangle that CutMix replaces: 0 in it and 1 elsewhere.

  Its sides are sqrt(1 - keep) of the image's and its centre is uniform; what
  sticks out is cut off, so that more than `keep` may stay (Yun et al. 2019,
  section 3.1 and algorithm 1).

  Args:
    rng: the key of the centre.
    keep: the fraction of the image to keep, at least.
    size: height and width.
  """
  cut = jnp.sqrt(1 - keep)
  inside = []
  for key, n in zip(jax.random.split(rng), size, strict=True):
    side = jnp.floor(cut * n)
    start = jnp.floor(jax.random.uniform(key) * n) - jnp.floor(side / 2)
    position = jnp.arange(n, dtype=jnp.float32)
    inside.append((position >= start) & (position < start + side))
  return 1.0 - (inside[0][:, None] & inside[1][None, :])


def beta(rng: Key[Array, ""], alpha: float) -> Float[Array, ""]:
  """Draws from Beta(alpha, alpha) by a table of its quantiles.

  `jax.random.beta` samples by rejection, in loops of unknown length, which
  are long to compile and make a GPU wait in every step.
  """
  steps = np.linspace(0.0, 1.0, 1025)
  quantiles = special.betaincinv(alpha, alpha, steps).astype(np.float32)
  u = jax.random.uniform(rng)
  return jnp.interp(u, jnp.asarray(steps, jnp.float32), jnp.asarray(quantiles))
