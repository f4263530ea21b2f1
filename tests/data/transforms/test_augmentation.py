"""Augmentation: its parts against references, and what holds for the whole."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, special

from fer_jax.data.transforms import augmentation, mixup, photometric, warping
from fer_jax.errors import UserError

KEY = jax.random.key(7)
# Turning each on by itself.
STRENGTHS: dict[str, Any] = {
  "shift": 0.2,
  "flip": True,
  "rotation": 30.0,
  "zoom": 0.3,
  "resized_crop": 0.3,
  "crop_padding": 3,
  "brightness": 0.4,
  "contrast": 0.5,
  "blur": 1.5,
  "random_erasing": 0.8,
}
SCIPY_MODE = {"nearest": "nearest", "zero": "grid-constant"}


def pictures(batch=8, h=14, w=12, c=1, seed=0):
  rng = np.random.default_rng(seed)
  return jnp.asarray(rng.random((batch, h, w, c), dtype=np.float32))


def run(fields, images, index=None, rng=KEY):
  if index is None:
    index = jnp.arange(images.shape[0])
  return compiled(tuple(fields.items()))(draw(rng, index), images)


# Compiled whole: op by op, each of them would compile by itself.
affine = jax.jit(warping.affine, static_argnames="fill")
translate = jax.jit(warping.translate, static_argnames=("limit", "fill"))
blur = jax.jit(photometric.blur)
draw = jax.jit(augmentation.draw)


def mix(images, targets, rng=KEY, **fields):
  return compiled_mix(tuple(fields.items()))(rng, images, targets)


@functools.cache
def compiled_mix(fields):
  return jax.jit(lambda k, x, t: mixup.mix(k, x, t, **dict(fields)))


@functools.cache
def compiled(fields):
  options = augmentation.Augmentation(**dict(fields))
  return jax.jit(lambda u, x: augmentation.apply(u, x, options))


# The parts.


def test_flip_mirrors_columns_of_the_chosen():
  x = pictures(2)
  y = warping.flip(x, jnp.array([True, False]))
  np.testing.assert_array_equal(y[0], np.asarray(x)[0, :, ::-1])
  np.testing.assert_array_equal(y[1], x[1])


@pytest.mark.parametrize("fill", warping.FILLS)
def test_translate_is_scipys_shift(fill):
  x = pictures(5, c=2)
  offset = np.array([[0, 0], [2, -1], [0.5, 1.25], [-3, 2.9], [-0.1, -2.6]])
  y = translate(x, jnp.asarray(offset, jnp.float32), limit=3, fill=fill)
  for i in range(5):
    want = ndimage.shift(
      np.asarray(x[i]), (*offset[i], 0), order=1, mode=SCIPY_MODE[fill]
    )
    np.testing.assert_allclose(y[i], want, atol=1e-5)
  np.testing.assert_array_equal(y[0], x[0])


@pytest.mark.parametrize("fill", warping.FILLS)
def test_affine_is_scipys(fill):
  x = pictures(4, c=2)
  rng = np.random.default_rng(1)
  matrix = np.eye(2) + rng.uniform(-0.7, 0.7, (4, 2, 2))
  offset = rng.uniform(-3, 3, (4, 2))
  y = affine(
    x,
    jnp.asarray(matrix, jnp.float32),
    jnp.asarray(offset, jnp.float32),
    fill=fill,
  )
  centre = (np.asarray(x.shape[1:3]) - 1) / 2
  for i in range(4):
    for channel in range(2):
      want = ndimage.affine_transform(
        np.asarray(x[i, :, :, channel]),
        matrix[i],
        offset[i] + centre - matrix[i] @ centre,
        order=1,
        mode=SCIPY_MODE[fill],
      )
      np.testing.assert_allclose(y[i, :, :, channel], want, atol=2e-5)


@pytest.mark.parametrize("side", [14, 130])  # Large ones are gathered.
@pytest.mark.parametrize("fill", warping.FILLS)
def test_products_of_weights_give_the_same_result(fill, side):
  x = pictures(3, h=side, w=side + 1, c=2)
  rng = np.random.default_rng(1)
  offset = jnp.asarray(rng.uniform(-3, 3, (3, 2)), jnp.float32)
  turned = jnp.asarray(rng.uniform(-1, 1, (3, 2, 2)), jnp.float32)
  scaled = turned * jnp.eye(2)[None]
  for warp, args, fields in (
    (warping.translate, (x, offset), {"limit": 3}),
    (warping.affine, (x, scaled, offset), {"diagonal": True}),
    (warping.affine, (x, turned, offset), {}),
  ):
    want = jax.jit(functools.partial(warp, fill=fill, **fields))(*args)
    by_products = jax.jit(
      functools.partial(warp, fill=fill, products=True, **fields)
    )
    got = by_products(*args)
    reads = "gather" in by_products.lower(*args).as_text()
    assert reads == (args[1] is turned and side > 112)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("fill", warping.FILLS)
def test_affine_without_turning_is_translate(fill):
  x = pictures(3)
  offset = jnp.asarray([[0, 0], [1.3, -2], [-2.5, 0.75]], jnp.float32)
  eye = jnp.tile(jnp.eye(2)[None], (3, 1, 1))
  np.testing.assert_allclose(
    affine(x, eye, -offset, fill=fill),
    translate(x, offset, limit=3, fill=fill),
    atol=1e-5,
  )
  same = affine(x, eye, jnp.zeros((3, 2)), fill=fill)
  np.testing.assert_array_equal(same, x)


def test_a_quarter_turn_is_clockwise():
  x = pictures(1, 9, 9)
  one = jnp.ones(1)
  matrix = warping.rotate_and_scale(jnp.deg2rad(90 * one), one, one)
  y = affine(x, matrix, jnp.zeros((1, 2)))
  np.testing.assert_allclose(y[0], np.rot90(x[0], -1), atol=1e-5)


def test_scale_below_one_enlarges():
  one = jnp.ones(1)
  matrix = warping.rotate_and_scale(0 * one, 0.5 * one, one)
  x = jnp.zeros((1, 9, 9, 1)).at[0, 4, 4, 0].set(1.0)
  y = affine(x, matrix, jnp.zeros((1, 2)))
  np.testing.assert_allclose(y[0, 2:7, 4, 0], [0, 0.5, 1, 0.5, 0], atol=1e-6)
  np.testing.assert_allclose(y[0, 4, 3:6, 0], [0, 1, 0], atol=1e-6)


def test_blur_is_a_gaussian_cut_off_at_the_edge():
  x = pictures(3, c=2)
  sigma = [0.0, 0.6, 2.0]
  y = blur(x, jnp.asarray(sigma))
  np.testing.assert_array_equal(y[0], x[0])
  for i in (1, 2):
    how = {"sigma": (sigma[i], sigma[i], 0), "mode": "constant", "truncate": 30}
    image = np.asarray(x[i], np.float64)
    want = ndimage.gaussian_filter(image, **how)
    want /= ndimage.gaussian_filter(np.ones_like(image), **how)
    np.testing.assert_allclose(y[i], want, atol=1e-5)


def test_contrast_keeps_the_mean_and_scales_the_rest():
  x = pictures(3)
  y = photometric.adjust_contrast(x, jnp.asarray([1.0, 0.0, 1.5]))
  np.testing.assert_allclose(y[0], x[0], atol=1e-6)
  np.testing.assert_allclose(y[1], np.full_like(x[1], x[1].mean()), rtol=1e-5)
  np.testing.assert_allclose(y[2].mean(), x[2].mean(), rtol=1e-5)
  np.testing.assert_allclose(y[2].std(), 1.5 * x[2].std(), rtol=1e-5)


def test_erased_rectangles_have_the_papers_areas_and_shapes():
  x = jnp.tile(pictures(1, 40, 40), (400, 1, 1, 1))
  y = np.asarray(run(dict(random_erasing=0.5), x))
  erased = (y != np.asarray(x))[..., 0]
  count = erased.sum(axis=(1, 2))
  assert 0.4 < (count > 0).mean() < 0.6
  for mask, image in zip(erased[count > 0], y[count > 0], strict=True):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    h, w = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert mask.sum() == h * w  # one full rectangle
    assert 0.01 < h * w / 1600 < 0.43  # 0.02..0.4 but for rounding
    assert 0.2 < h / w < 5
    np.testing.assert_allclose(image[mask], x[0].mean(), rtol=1e-5)
  area = count[count > 0] / 1600
  assert area.min() < 0.06 and area.max() > 0.35


@given(
  area=st.floats(1e-3, 1),
  u=st.floats(0, 1),
  h=st.integers(1, 300),
  w=st.integers(1, 300),
  aspect=st.sampled_from(
    [augmentation.CROP_ASPECT, augmentation.ERASED_ASPECT]
  ),
)
@settings(max_examples=60, deadline=None)
def test_rectangles_fit_and_have_their_area(area, u, h, w, aspect):
  both = warping.fitting_sides(
    jnp.asarray([area]), jnp.asarray([u]), aspect, h, w
  )
  tall, wide = (float(side[0]) for side in both)
  assert 0 < tall <= h and 0 < wide <= w
  assert tall * wide == pytest.approx(area * h * w, rel=1e-4)
  low, high = aspect
  if area * h <= low * w and h >= high * w * area:
    # Every aspect of the range fits: the range is kept.
    assert low * 0.999 <= tall / wide <= high * 1.001


# The whole.


def test_nothing_is_on_by_default():
  x = pictures()
  options = augmentation.Augmentation()
  assert not augmentation.any_on(options)
  assert augmentation.augment(KEY, x, jnp.arange(8), options) is x
  targets = jnp.eye(8)
  assert mixup.mix(KEY, x, targets) == (x, targets)


@pytest.mark.parametrize("name", STRENGTHS)
def test_each_changes_images_and_keeps_their_range(name):
  fields: dict[str, Any] = {name: STRENGTHS[name]}
  augmentation.check(augmentation.Augmentation(**fields))
  assert augmentation.any_on(augmentation.Augmentation(**fields))
  x = pictures()
  y = run(fields, x)
  assert not np.array_equal(y, x)
  assert y.min() >= 0 and y.max() <= 1


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("fill", warping.FILLS)
def test_shape_and_dtype_are_kept(fill, dtype):
  x = pictures(8, c=3).astype(dtype)
  for fields in ({**STRENGTHS, "fill": fill}, {"shift": 0.1, "fill": fill}):
    options = augmentation.Augmentation(**fields)
    y = jax.eval_shape(
      lambda x, c=options: augmentation.augment(KEY, x, jnp.arange(8), c), x
    )
    assert (y.shape, y.dtype) == (x.shape, dtype)


def test_bfloat16_is_float32_but_for_rounding():
  x = pictures().astype(jnp.bfloat16)
  y = run(STRENGTHS, x).astype(jnp.float32)
  want = run(STRENGTHS, x.astype(jnp.float32))
  np.testing.assert_allclose(y, want, atol=0.04)


def test_flips_half_of_the_images():
  x = pictures(400, 2, 3)
  y = run(dict(flip=True), x)
  same = np.all(y == x, axis=(1, 2, 3))
  mirrored = np.all(y == x[:, :, ::-1], axis=(1, 2, 3))
  assert np.all(same ^ mirrored)
  assert 0.4 < mirrored.mean() < 0.6


def test_padded_crops_reach_every_offset():
  x = jnp.zeros((400, 9, 9, 1)).at[:, 4, 4].set(1.0)
  y = np.asarray(run(dict(crop_padding=2, fill="zero"), x))
  _, rows, columns, _ = np.nonzero(y)
  assert len(rows) == 400 and np.all(y[y > 0] == 1)
  assert set(rows) == set(columns) == {2, 3, 4, 5, 6}


def test_shift_stays_within_its_fraction_of_each_side():
  h, w = 41, 21
  x = jnp.zeros((400, h, w, 1)).at[:, 20, 10].set(1.0)
  y = np.asarray(run(dict(shift=0.2), x))[..., 0]
  dy = (y.sum(2) * np.arange(h)).sum(1) - 20
  dx = (y.sum(1) * np.arange(w)).sum(1) - 10
  assert 0.18 * h < np.abs(dy).max() <= 0.2 * h + 1e-3
  assert 0.18 * w < np.abs(dx).max() <= 0.2 * w + 1e-3
  assert abs(np.corrcoef(dy, dx)[0, 1]) < 0.2


def test_zoom_and_rotation_stay_within_their_ranges():
  # Two spots on a row: their distance is the zoom, their slope the angle.
  x = jnp.zeros((400, 31, 31, 1)).at[:, 15, 5].set(1.0).at[:, 15, 25].set(1.0)
  y = np.asarray(run(dict(zoom=0.2, rotation=25.0), x))[..., 0]
  i = np.arange(31)

  def centre(part, columns):
    total = part.sum((1, 2))
    row = (part.sum(2) * i).sum(1) / total
    return row, (part.sum(1) * columns).sum(1) / total

  left, right = centre(y[:, :, :15], i[:15]), centre(y[:, :, 16:], i[16:])
  dy, dx = right[0] - left[0], right[1] - left[1]
  zoom, angle = np.hypot(dy, dx) / 20, np.rad2deg(np.arctan2(dy, dx))
  assert 0.77 < zoom.min() < 0.84 and 1.16 < zoom.max() < 1.23
  assert -27 < angle.min() < -22 and 22 < angle.max() < 27


@given(seed=st.integers(0, 2**31), first=st.integers(0, 2**30))
@settings(max_examples=25, deadline=None)
def test_a_resized_crop_reads_nothing_outside(seed, first):
  ones, rng = jnp.ones((16, 14, 12, 1)), jax.random.key(seed)
  index = first + jnp.arange(16)
  y = run({"resized_crop": 0.1, "fill": "zero"}, ones, index, rng)
  np.testing.assert_allclose(y, 1, atol=1e-4)


@given(seed=st.integers(0, 2**31), first=st.integers(0, 2**30))
@settings(max_examples=25, deadline=None)
def test_with_all_on_images_stay_in_range(seed, first):
  x, index = pictures(16, seed=seed), first + jnp.arange(16)
  strongest = {**STRENGTHS, "shift": 1.0, "rotation": 180.0, "zoom": 0.9}
  y = run(strongest, x, index, jax.random.key(seed))
  assert np.isfinite(y).all() and y.min() >= 0 and y.max() <= 1


@pytest.mark.parametrize(
  "fields",
  [STRENGTHS, {"shift": 0.2, "crop_padding": 2, "flip": True}],
  ids=["all", "shifts"],
)
def test_four_shares_give_what_one_batch_gives(fields):
  options = augmentation.Augmentation(**fields)
  step = jax.jit(lambda x, i: augmentation.augment(KEY, x, i, options))
  x, index = np.asarray(pictures(16)), np.arange(16)
  shares = [step(x[i : i + 4], index[i : i + 4]) for i in range(0, 16, 4)]
  np.testing.assert_allclose(jnp.concatenate(shares), step(x, index), atol=1e-5)


def test_images_differ_in_what_happens_to_them():
  x = jnp.tile(pictures(1), (8, 1, 1, 1))
  y = np.asarray(run(dict(rotation=20.0), x)).reshape(8, -1)
  assert len(np.unique(y, axis=0)) == 8


def test_the_key_decides():
  x = pictures()
  y = run(STRENGTHS, x)
  np.testing.assert_array_equal(run(STRENGTHS, x), y)
  assert not np.allclose(run(STRENGTHS, x, rng=jax.random.key(8)), y)


def test_one_augmentation_leaves_the_draws_of_another():
  x = pictures()
  flipped = run(dict(flip=True), x)
  both = run(dict(flip=True, brightness=1e-6), x)
  np.testing.assert_allclose(both, flipped, atol=1e-5)


def test_compiles_once():
  traces = []

  @jax.jit
  def step(rng, images, index):
    traces.append(1)
    return augmentation.augment(
      rng, images, index, augmentation.Augmentation(**STRENGTHS)
    )

  for i in range(3):
    step(jax.random.key(i), pictures(4, seed=i), 4 * i + jnp.arange(4))
  assert len(traces) == 1


# Mixing.


def labels(batch, classes=7):
  return jax.nn.one_hot(jnp.arange(batch) % classes, classes)


def numbered(batch, h=10, w=8):
  """Images whose pixels all hold the image's position in the batch."""
  value = jnp.arange(batch, dtype=jnp.float32)[:, None, None, None]
  return jnp.broadcast_to(value, (batch, h, w, 1))


@pytest.mark.parametrize("batch", [6, 7])
def test_mixup_weighs_images_and_targets_alike(batch):
  x, targets = numbered(batch), labels(batch)
  y, mixed = mix(x, targets, mixup=1.0)
  share = float(mixed[0, 0])
  assert 0 < share < 1
  np.testing.assert_allclose(mixed.sum(1), 1, rtol=1e-6)
  partner = [1, 0, 3, 2, 5, 4, 6][:batch]
  want = share * np.arange(batch) + (1 - share) * np.asarray(partner)
  np.testing.assert_allclose(y.mean((1, 2, 3)), want, rtol=1e-5)
  np.testing.assert_allclose(
    mixed, share * targets + (1 - share) * targets[np.array(partner)], rtol=1e-5
  )


def test_cutmix_weighs_targets_by_the_area_it_takes():
  x, targets = numbered(4), labels(4)
  shares = set()
  for seed in range(6):
    rng = jax.random.key(seed)
    y, mixed = mix(x, targets, rng, cutmix=1.0)
    assert set(np.unique(y[:2])) <= {0.0, 1.0}  # whole pixels of either
    kept = np.asarray(y[0, :, :, 0] == 0)
    assert mixed[0, 0] == pytest.approx(kept.mean(), rel=1e-5)
    np.testing.assert_allclose(mixed.sum(1), 1, rtol=1e-6)
    taken = ~kept
    rows, columns = taken.any(1), taken.any(0)
    assert taken.sum() == rows.sum() * columns.sum()  # one rectangle
    shares.add(round(float(mixed[0, 0]), 4))
  assert len(shares) > 3


@given(seed=st.integers(0, 2**31), keep=st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_cutmix_keeps_at_least_what_it_should(seed, keep):
  sample = jax.jit(mixup.cutmix_mask, static_argnums=2)
  mask = sample(jax.random.key(seed), jnp.asarray(keep, jnp.float32), (10, 8))
  assert set(np.unique(mask)) <= {0.0, 1.0}
  assert mask.mean() >= keep - 1e-6


def test_both_take_turns():
  x, targets = numbered(2), labels(2)
  cut = 0
  for seed in range(40):
    y, _ = mix(x, targets, jax.random.key(seed), mixup=1.0, cutmix=1.0)
    cut += set(np.unique(y)) <= {0.0, 1.0}
  assert 8 < cut < 32


def test_even_shares_mix_as_the_whole_batch_does():
  x, targets = pictures(8), labels(8)
  whole = mix(x, targets, mixup=0.4)
  shares = [mix(x[i : i + 4], targets[i : i + 4], mixup=0.4) for i in (0, 4)]
  for want, got in zip(whole, zip(*shares, strict=True), strict=True):
    np.testing.assert_allclose(jnp.concatenate(got), want, atol=1e-6)


def test_mixing_keeps_dtypes():
  x = pictures().astype(jnp.bfloat16)
  y, targets = mix(x, labels(8), cutmix=1.0)
  assert y.dtype == jnp.bfloat16 and targets.dtype == jnp.float32


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_lambda_has_its_distribution(alpha):
  n = 4000
  keys = jax.random.split(KEY, n)
  sample = jax.jit(jax.vmap(lambda key: mixup.beta(key, alpha)))
  draws = np.sort(sample(keys))
  cdf = special.betainc(alpha, alpha, draws.astype(np.float64))
  # Kolmogorov and Smirnov's bound, which one sample in a thousand exceeds.
  assert np.abs(cdf - (np.arange(n) + 0.5) / n).max() < 1.95 / np.sqrt(n)


def test_a_gpu_draws_lambda_without_a_loop():
  program = jax.jit(lambda key: mixup.beta(key, 0.2)).trace(KEY)
  assert "while" not in program.lower(lowering_platforms=("cuda",)).as_text()


# What users may type.


def test_check_knows_every_field():
  augmentation.check(augmentation.Augmentation())
  wrong: Any = -1
  for name, value in dataclasses.asdict(augmentation.Augmentation()).items():
    if isinstance(value, str):
      continue
    with pytest.raises(UserError, match=f"augment.{name}=-1(.0)? must"):
      augmentation.check(augmentation.Augmentation(**{name: wrong}))


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("shift", 1.5),
    ("fill", "reflect"),
    ("flip", 0.5),
    ("rotation", 181.0),
    ("zoom", 1.0),
    ("resized_crop", 1.1),
    ("crop_padding", 1.5),
    ("crop_padding", True),
    ("brightness", float("nan")),
    ("contrast", 2.0),
    ("blur", float("inf")),
    ("random_erasing", 1.01),
    ("mixup", float("inf")),
    ("cutmix", "on"),
  ],
)
def test_out_of_range_is_named_in_one_line(field, value):
  with pytest.raises(UserError, match=f"augment.{field}[ =]") as e:
    augmentation.check(augmentation.Augmentation(**{field: value}))
  assert "\n" not in str(e.value)


def test_padding_as_wide_as_the_images_is_refused():
  with pytest.raises(UserError, match="augment.crop_padding=12 must"):
    run(dict(crop_padding=12), pictures())
