"""Mixup and CutMix: convex combinations of pairs of images and targets.

Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization",
https://arxiv.org/abs/1710.09412; Yun et al. 2019, "CutMix: Regularization
Strategy to Train Strong Classifiers", https://arxiv.org/abs/1905.04899
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from scipy import special


def mix(
  rng: Key[Array, ""],
  images: Float[Array, "b h w c"],
  targets: Float[Array, "b k"],
  *,
  mixup: float = 0.0,
  cutmix: float = 0.0,
) -> tuple[Float[Array, "b h w c"], Float[Array, "b k"]]:
  """Mixes every image with its neighbor in the batch.

  With both on, each step applies one of them with probability 0.5. One lambda
  (and one rectangle) is drawn per batch, as in both papers' code.

  The partner is the neighbor in the batch: images 0 and 1 are mixed with each
  other, 2 and 3, and so on; the last one of an odd batch stays unchanged. The
  order of an epoch is random, so neighbors are random pairs. Under data
  parallelism the partner is on the same device; with the same key on all
  devices, n devices give the same result as one where each of them has an
  even number of consecutive examples.

  Args:
    rng: the step's key, the same on all devices, used for nothing else.
    images: the images.
    targets: a distribution over the classes for each image.
    mixup: alpha of mixup's Beta(alpha, alpha); 0 is off.
    cutmix: alpha of CutMix's Beta(alpha, alpha); 0 is off.

  Returns:
    Mixed images and targets; unchanged where both are off.
  """
  if not (mixup or cutmix):
    return images, targets
  lambda_rng, box_rng, choice_rng = jax.random.split(rng, 3)
  _, h, w, _ = images.shape
  weight = None
  if mixup:
    weight = jnp.full((h, w), beta(lambda_rng, mixup))
  if cutmix:
    kept = cutmix_mask(box_rng, beta(lambda_rng, cutmix), (h, w))
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
  """Blends neighbors: `weight` of an image, `1 - weight` of its partner.

  Args:
    images: the images.
    targets: a distribution over the classes for each image.
    weight: weight of each pixel, the same for all images; the weight of the
      targets is its mean, lambda.

  Returns:
    Blended images and targets, in the dtypes of the arguments.
  """
  b = images.shape[0]
  partner = np.minimum(np.arange(b) ^ 1, b - 1)
  pixel = weight.astype(images.dtype)[None, :, :, None]
  fraction = weight.mean().astype(targets.dtype)
  return (
    images * pixel + images[partner] * (1 - pixel),
    targets * fraction + targets[partner] * (1 - fraction),
  )


def cutmix_mask(
  rng: Key[Array, ""], keep: Float[Array, ""], size: tuple[int, int]
) -> Float[Array, "h w"]:
  """Draws the mask of CutMix: 0 in the replaced rectangle and 1 elsewhere.

  Its sides are sqrt(1 - keep) of the image's and its center is uniform. It is
  clipped to the image, so that more than `keep` may remain (Yun et al. 2019,
  section 3.1 and algorithm 1).

  Args:
    rng: key of the center.
    keep: the smallest fraction of the image to keep.
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
  """Draws from Beta(alpha, alpha) with a table of its quantiles.

  `jax.random.beta` uses rejection sampling, whose loops of unknown length are
  slow to compile and stall a GPU in every step.
  """
  last = 1024
  steps = np.linspace(0.0, 1.0, last + 1)
  quantiles = special.betaincinv(alpha, alpha, steps).astype(np.float32)
  # `jnp.interp` would search for the position, in a loop.
  position = jax.random.uniform(rng) * last
  i = jnp.minimum(position.astype(jnp.int32), last - 1)
  low, high = jnp.asarray(quantiles)[i], jnp.asarray(quantiles)[i + 1]
  return low + (position - i) * (high - low)
