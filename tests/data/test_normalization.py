"""Bytes to floats, channels, size and scale."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fer_jax.data import normalization
from fer_jax.errors import UserError


def stored(channels, size=(12, 12), batch=3):
  rng = np.random.default_rng(0)
  shape = (batch, *size, channels)
  return jnp.asarray(rng.integers(0, 256, shape, dtype=np.uint8))


def inputs(**fields):
  defaults = {
    "image_size": 48,
    "channels": 1,
    "normalization": "unit",
    "mean": (0.5077,),
    "std": (0.2551,),
  }
  return {**defaults, **fields}


def test_bytes_become_0_to_1():
  x = normalization.to_float(jnp.asarray([[[[0], [51], [255]]]], jnp.uint8), 1)
  assert x.dtype == jnp.float32
  np.testing.assert_allclose(x.ravel(), [0, 0.2, 1], rtol=1e-6)


def test_grey_becomes_three_equal_channels():
  x = normalization.to_float(stored(1), 3)
  assert x.shape == (3, 12, 12, 3)
  for channel in range(3):
    np.testing.assert_allclose(
      x[..., channel], np.asarray(stored(1))[..., 0] / 255, rtol=1e-6
    )


def test_colour_becomes_the_grey_that_pillow_makes():
  x = normalization.to_float(stored(3), 1)
  grey = [Image.fromarray(i).convert("L") for i in np.asarray(stored(3))]
  want = np.stack([np.asarray(i) for i in grey])[..., None] / 255
  np.testing.assert_allclose(x, want, atol=0.6 / 255)  # Pillow rounds


def test_channels_that_cannot_be_made_are_named():
  with pytest.raises(UserError, match="input.channels=3 .* have 4"):
    normalization.to_float(stored(4), 3)


@pytest.mark.parametrize("size", [5, 8, 12, 20])
def test_resize_is_pillows(size):
  x = normalization.to_float(stored(1, (12, 16)), 1)
  want = [
    np.asarray(
      Image.fromarray(i).resize((size, size), Image.Resampling.BILINEAR)
    )
    for i in np.asarray(x[..., 0])
  ]
  got = normalization.resize(x, size)
  np.testing.assert_allclose(got[..., 0], np.stack(want), atol=1e-5)


def test_resize_to_the_same_size_is_nothing():
  x = normalization.to_float(stored(1), 1)
  assert normalization.resize(x, 12) is x


def test_unit_leaves_the_images():
  x = normalization.to_float(stored(1), 1)
  assert normalization.normalize(x, "unit", 0.5, 0.25) is x


@pytest.mark.parametrize(
  ("mean", "std"),
  [((0.5,), (0.25,)), (0.5, 0.25), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))],
)
def test_mean_std(mean, std):
  x = normalization.to_float(stored(3), 3)
  want = (np.asarray(x) - np.asarray(mean)) / np.asarray(std)
  np.testing.assert_allclose(
    normalization.normalize(x, "mean_std", mean, std), want, atol=1e-5
  )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtype_is_kept(dtype):
  x = normalization.to_float(stored(1), 1).astype(dtype)
  x = normalization.resize(x, 8)
  assert normalization.normalize(x, "mean_std", 0.5, 0.25).dtype == dtype


def test_prepare_is_all_three_in_order():
  config = inputs(normalization="mean_std", image_size=8, channels=3)
  got = jax.jit(lambda x: normalization.prepare(x, **config))(stored(1))
  x = normalization.resize(normalization.to_float(stored(1), 3), 8)
  want = normalization.normalize(x, "mean_std", (0.5077,), (0.2551,))
  assert got.shape == (3, 8, 8, 3)
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_defaults_pass():
  normalization.check(**inputs())


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"image_size": 0}, "input.image_size=0"),
    ({"image_size": 4.5}, "input.image_size=4.5"),
    ({"channels": 2}, "input.channels=2 must be 1"),
    (
      {"normalization": "z"},
      "input.normalization 'z'.*mean_std, unit",
    ),
    ({"mean": (0.1, 0.2)}, "input.mean=.*one number"),
    ({"channels": 3, "std": (0.1, 0.2)}, "input.std=.*channel .3."),
    ({"std": (0.0,)}, "input.std=.*above 0"),
    ({"std": (-1.0,)}, "input.std=.*above 0"),
    ({"mean": ()}, "input.mean=.*one number"),
    ({"mean": (float("nan"),)}, "input.mean=.*numbers"),
    ({"mean": "grey"}, "input.mean=grey must be numbers"),
  ],
)
def test_what_is_wrong_is_named(fields, message):
  config = inputs(**{"normalization": "mean_std", **fields})
  with pytest.raises(UserError, match=message) as caught:
    normalization.check(**config)
  assert "\n" not in str(caught.value)


def test_statistics_are_not_asked_for_where_they_are_not_used():
  normalization.check(**inputs(normalization="unit", std=(0.0,)))
