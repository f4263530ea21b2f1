"""Changes of pixel values: blur, contrast and erasing."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def blur(
  images: Float[Array, "b h w c"], sigma: Float[Array, "b"]
) -> Float[Array, "b h w c"]:
  """Applies a Gaussian blur with a sigma of its own to each image.

  At the edges the kernel is truncated and renormalized. As a matrix product
  along each axis it needs no bound on sigma, and on CPU its input is not
  recomputed for every tap.

  Args:
    images: the images.
    sigma: in pixels; 0 leaves an image unchanged.

  Returns:
    The blurred images, in the dtype of `images`.
  """

  def kernels(n):
    i = jnp.arange(n, dtype=jnp.float32)
    distance = (i[:, None] - i[None, :])[None, :, :]
    # Where sigma is 0, all weights but the center underflow to 0.
    unit = distance / jnp.maximum(sigma, 1e-3)[:, None, None]
    weights = jnp.exp(-0.5 * unit**2)
    weights /= weights.sum(axis=2, keepdims=True)
    return weights.astype(images.dtype)

  _, h, w, _ = images.shape
  # The highest precision: otherwise some devices round to fewer bits.
  x = jnp.einsum("bih,bhwc->biwc", kernels(h), images, precision="highest")
  return jnp.einsum("bjw,biwc->bijc", kernels(w), x, precision="highest")


def adjust_contrast(
  images: Float[Array, "b h w c"], factor: Float[Array, "b"]
) -> Float[Array, "b h w c"]:
  """Scales each image's distance from its own mean by its `factor`."""
  mean = images.mean(axis=(1, 2, 3), keepdims=True)
  return mean + (images - mean) * factor.astype(images.dtype).reshape(
    mean.shape
  )


def erase(
  images: Float[Array, "b h w c"], erased: Bool[Array, "b h w"]
) -> Float[Array, "b h w c"]:
  """Replaces the erased pixels of an image by the mean of that image."""
  mean = images.mean(axis=(1, 2), keepdims=True)
  return jnp.where(erased[..., None], mean, images)
