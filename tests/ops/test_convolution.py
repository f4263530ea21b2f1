"""Tests of fer_jax.ops: every lowering equals XLA's convolution."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from numpy.testing import assert_array_equal
from quick_models import quick_jit

from fer_jax.ops import convolution as ops
from fer_jax.ops import cpu_kernels, dispatch, lowerings

EXPLICIT = ((2, 0), (1, 3))
UNPADDED = ((0, 0), (0, 0))
DENSE = (lowerings.shift_and_add, lowerings.im2col, lowerings.space_to_depth)


class Case(NamedTuple):
  """A convolution of two images.

  Attributes:
    image: shape HWC.
    kernel: shape HWIO.
    strides: rows, columns.
    padding: as `lax.conv_general_dilated` takes it.
  """

  image: tuple[int, int, int]
  kernel: tuple[int, int, int, int]
  strides: tuple[int, int] = (1, 1)
  padding: Any = "SAME"

  @property
  def groups(self) -> int:
    """Groups of channels."""
    return self.image[2] // self.kernel[2]

  @property
  def pads(self) -> Any:
    """The padding in pixels."""
    if not isinstance(self.padding, str):
      return self.padding
    pads = lax.padtype_to_pads(
      self.image[:2], self.kernel[:2], self.strides, self.padding
    )
    return tuple((int(before), int(after)) for before, after in pads)

  @property
  def rule(self) -> dispatch.Rule:
    """The rule on CPU."""
    return dispatch.rule_for(
      (2, *self.image), self.kernel, self.strides, self.pads, "cpu"
    )

  def reference(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """What every lowering must give."""
    return lax.conv_general_dilated(
      x,
      kernel,
      self.strides,
      self.padding,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=self.groups,
    )

  def chosen(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution by the rule for CPU."""
    return ops.convolve(
      x,
      kernel,
      self.strides,
      self.padding,
      feature_group_count=self.groups,
    )

  def lowered(self, lowering: dispatch.Lowering) -> Callable[..., jax.Array]:
    """The convolution by one lowering."""
    return lambda x, kernel: lowering(x, kernel, self.strides, self.pads)


def assert_near(
  actual: Any, expected: Any, tolerance: float = 2e-5, message: Any = ""
) -> None:
  """Equal shapes and dtypes; largest error relative to the largest value."""
  assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
  a, b = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
  error, scale = (np.max(np.abs(d), initial=0) for d in (a - b, b))
  assert error <= tolerance * scale, message


def check(
  case: Case,
  lowered: tuple[dispatch.Lowering, ...] = DENSE,
  dtype: Any = jnp.float32,
  tolerance: float = 2e-5,
) -> None:
  """Value and both gradients of the rule's choice and of each lowering."""
  # Time is spent compiling: nothing is compiled twice.
  others = [low for low in lowered if dispatch.Rule.all(low) != case.rule]
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, *case.image)), dtype)
  kernel = jnp.asarray(rng.normal(size=case.kernel), dtype)
  out = jax.eval_shape(case.reference, x, kernel)
  cotangent = jnp.asarray(rng.normal(size=out.shape), dtype)

  @quick_jit
  def run(x: jax.Array, kernel: jax.Array, cotangent: jax.Array) -> Any:
    results = {}
    for name, convolution in {
      "reference": case.reference,
      "the rule": case.chosen,
      **{low.__name__: case.lowered(low) for low in others},
    }.items():
      y, pull = jax.vjp(convolution, x, kernel)
      results[name] = (y, *pull(cotangent))
    return results

  results = run(x, kernel, cotangent)
  expected = results.pop("reference")
  for name, result in results.items():
    for what, a, b in zip(
      ("value", "input's gradient", "kernel's gradient"),
      result,
      expected,
      strict=True,
    ):
      assert_near(a, b, tolerance, (name, what))


# Every pair of kernel, strides and padding occurs.
SIZES = [(1, 1), (2, 2), (3, 3), (5, 5), (7, 7), (1, 3), (3, 2)]
STRIDES = [(1, 1), (2, 2), (2, 1)]
PADDINGS = ["SAME", "VALID", EXPLICIT]


@pytest.mark.parametrize(
  ("size", "strides", "padding"),
  [
    (size, strides, PADDINGS[(i + j) % 3])
    for (i, size), (j, strides) in itertools.product(
      enumerate(SIZES), enumerate(STRIDES)
    )
  ],
)
def test_kernels_strides_and_paddings(
  size: tuple[int, int], strides: tuple[int, int], padding: Any
) -> None:
  case = Case((9, 8, 6), (*size, 6, 5), strides, padding)
  check(case, () if size == (7, 7) else DENSE)  # 49 taps compile slowly


@pytest.mark.parametrize(
  "case",
  [
    Case((1, 1, 8), (3, 3, 8, 4), padding=((1, 1), (1, 1))),
    Case((1, 1, 8), (3, 3, 8, 4), (2, 2), ((1, 1), (1, 1))),
    Case((2, 2, 8), (3, 3, 8, 4), padding=((1, 1), (1, 1))),
    Case((2, 2, 8), (3, 3, 8, 4), (2, 2), ((1, 1), (1, 1))),
    Case((2, 1, 8), (7, 7, 8, 4), (2, 2), ((3, 3), (3, 3))),
    Case((3, 5, 8), (2, 2, 8, 4), (3, 3)),
    Case((1, 1, 8), (1, 1, 8, 4), (2, 2), ((1, 1), (1, 1))),  # meets no pixel
    Case((2, 2, 8), (3, 3, 8, 4), padding="VALID"),  # gives no pixel
    Case((2, 4, 8), (3, 3, 8, 4), (2, 2), "VALID"),
  ],
)
def test_small_maps(case: Case) -> None:
  check(case)


@pytest.mark.parametrize(
  "case",
  [
    Case((48, 48, 1), (7, 7, 1, 8), (2, 2), ((3, 3), (3, 3))),
    Case((15, 13, 3), (7, 7, 3, 8), (2, 2), ((3, 3), (3, 3))),
    Case((9, 8, 3), (3, 3, 3, 8), (1, 1), ((1, 1), (1, 1))),
    Case((3, 3, 1), (11, 11, 1, 2), (4, 4), ((5, 5), (5, 5))),
    Case((1, 1, 1), (7, 7, 1, 2), (2, 2), ((3, 3), (3, 3))),
    Case((12, 13, 32), (3, 3, 32, 40), (1, 1), ((1, 1), (1, 1))),
    Case((3, 3, 256), (3, 3, 256, 300), (1, 1), ((1, 1), (1, 1))),
  ],
)
def test_channels_of_stems_and_of_deep_layers(case: Case) -> None:
  check(case, (lowerings.space_to_depth,))


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("padding", PADDINGS)
def test_pointwise(strides: tuple[int, int], padding: Any) -> None:
  case = Case((5, 4, 6), (1, 1, 6, 3), strides, padding)
  served = padding != EXPLICIT
  assert (case.rule == dispatch.Rule.all(lowerings.pointwise)) == served
  check(case, ())


@pytest.mark.parametrize(
  ("size", "strides", "padding"),
  [
    ((3, 3), (1, 1), "SAME"),
    ((3, 3), (2, 2), ((1, 1), (1, 1))),
    ((5, 5), (2, 1), "VALID"),
    ((2, 3), (1, 1), EXPLICIT),
    ((1, 1), (2, 2), "VALID"),
    ((7, 7), (1, 1), "VALID"),  # gives no pixel
  ],
)
def test_depthwise(
  size: tuple[int, int], strides: tuple[int, int], padding: Any
) -> None:
  case = Case((6, 7, 5), (*size, 1, 5), strides, padding)
  assert case.rule == dispatch.Rule.all(cpu_kernels.depthwise)
  check(case, (lowerings.depthwise,))


@pytest.mark.parametrize(
  "case",
  [
    Case((5, 5, 4), (3, 3, 1, 8)),  # two outputs a channel
    Case((5, 5, 6), (3, 3, 2, 6), (2, 2)),
    Case((5, 5, 6), (1, 1, 3, 4), padding="VALID"),
    Case((5, 5, 6), (3, 3, 2, 3)),
  ],
)
def test_other_groups_are_left_to_xla(case: Case) -> None:
  assert case.rule == dispatch.Rule.all(lowerings.xla)
  check(case, ())


@pytest.mark.parametrize(
  "case",
  [
    Case((7, 6, 8), (3, 3, 8, 4), (2, 2), ((1, 1), (1, 1))),
    Case((7, 6, 3), (5, 5, 3, 4), (2, 2)),
    Case((5, 4, 6), (1, 1, 6, 3), (2, 2), "VALID"),
    Case((5, 4, 6), (3, 3, 1, 6)),
  ],
)
def test_bfloat16(case: Case) -> None:
  check(case, DENSE if case.groups == 1 else (), jnp.bfloat16, 0.05)


@st.composite
def cases(draw: st.DrawFn) -> Case:
  """Small dense or depthwise convolutions that give a pixel or more."""
  side = st.integers(1, 7)
  height, width, kh, kw = (draw(side) for _ in range(4))
  # Not a whole kernel or more: there, XLA's gradient reads beyond the image.
  high, wide = st.integers(0, min(3, kh - 1)), st.integers(0, min(3, kw - 1))
  pads = ((draw(high), draw(high)), (draw(wide), draw(wide)))
  channels, outputs = draw(st.sampled_from([(1, 2), (3, 4), (6, 1), (6, 6)]))
  inputs = draw(st.sampled_from([1, 6])) if channels == outputs else channels
  strides = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
  hypothesis.assume(height + sum(pads[0]) >= kh)
  hypothesis.assume(width + sum(pads[1]) >= kw)
  image, kernel = (height, width, channels), (kh, kw, inputs, outputs)
  return Case(image, kernel, strides, pads)


# Each example compiles. They are the same in every run, since the gradient of
# the reference aborts jaxlib 0.10.2 for some: an image of 5x4, a kernel of 5x2,
# strides of 3 and 2, padding of ((1, 2), (1, 1)).
@hypothesis.settings(deadline=None, max_examples=15, derandomize=True)
@hypothesis.given(cases())
def test_any_shape(case: Case) -> None:
  check(case, DENSE if case.groups == 1 else ())


def convolve_by(rule: dispatch.Rule) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Value and gradients, all of them products of ones, by a forced rule."""
  x, kernel = jnp.ones((1, 1, 1, 8)), jnp.ones((1, 1, 8, 1))
  with dispatch.use_rule(rule):
    y, pull = jax.vjp(ops.convolve, x, kernel)
    return y, *pull(jnp.ones_like(y))


def test_a_rule_has_three_parts() -> None:
  def times(factor: float) -> dispatch.Lowering:
    return lambda *args: factor * lowerings.xla(*args)

  rule = dispatch.Rule(times(1.0), times(2.0), times(3.0))
  y, to_input, to_kernel = convolve_by(rule)
  assert_array_equal(y, np.full(y.shape, 8.0))
  assert_array_equal(to_input, np.full(to_input.shape, 2.0))
  assert_array_equal(to_kernel, np.full(to_kernel.shape, 3.0))


def test_use_forces_and_restores() -> None:
  def rule() -> dispatch.Rule:
    return dispatch.rule_for(
      (2, 5, 5, 4), (3, 3, 2, 4), (1, 1), UNPADDED, "gpu"
    )

  forced = dispatch.Rule.all(lowerings.im2col)
  assert rule() == dispatch.XLA_ONLY
  with dispatch.use_rule(forced):
    assert rule() == forced
    with dispatch.use_xla():
      assert rule() == dispatch.XLA_ONLY
    assert rule() == forced
  assert rule() == dispatch.XLA_ONLY
  with pytest.raises(ZeroDivisionError), dispatch.use_rule(forced):
    raise ZeroDivisionError
  assert rule() == dispatch.XLA_ONLY


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_accelerators_use_xla(platform: str) -> None:
  for image, kernel, pads in [
    ((2, 48, 48, 1), (7, 7, 1, 64), ((3, 3), (3, 3))),
    ((2, 12, 12, 64), (3, 3, 64, 64), ((1, 1), (1, 1))),
    ((2, 2, 2, 512), (1, 1, 512, 64), UNPADDED),
    ((256, 6, 6, 64), (3, 3, 1, 64), ((1, 1), (1, 1))),
  ]:
    rule = dispatch.rule_for(image, kernel, (1, 1), pads, platform)
    assert rule == dispatch.Rule.all(lowerings.xla)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize(
  ("size", "kernel", "num_im2col"),
  [
    (2, (3, 3, 8, 6), 3),
    (3, (3, 3, 8, 6), 0),
    (4, (3, 3, 8, 6), 0),
    (6, (3, 3, 1, 8), 0),
    (3, (3, 3, 1, 8), 0),
    (3, (1, 1, 8, 6), 0),
  ],
)
def test_small_maps_on_gpus_equal_lax(
  size, kernel, num_im2col, strides
) -> None:
  rng = np.random.default_rng(0)
  pads = ((kernel[0] // 2,) * 2,) * 2
  shape = (4, size, size, 8)
  rule = dispatch.rule_for(shape, kernel, strides, pads, "gpu")
  if strides == (1, 1):
    assert list(rule).count(lowerings.im2col) == num_im2col
  with jax.enable_x64():
    x = jnp.asarray(rng.normal(size=shape))
    weights = jnp.asarray(rng.normal(size=kernel))
    groups = 8 // kernel[2]

    def run(x, weights):
      y = ops.convolve(x, weights, strides, pads, feature_group_count=groups)
      return (y**2).sum(), y

    def all_of() -> list[jax.Array]:
      # A new function each time, so that JAX traces it again.
      gradient = jax.grad(lambda *args: run(*args), (0, 1), has_aux=True)
      gradients, y = quick_jit(gradient)(x, weights)
      return [*gradients, y]

    with dispatch.tracing_for("gpu"):
      own = all_of()
    with dispatch.use_xla():
      reference = all_of()
    for one, other in zip(own, reference, strict=True):
      assert one.shape == other.shape and one.dtype == other.dtype
      np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


def test_the_rule_is_that_of_the_back_end(
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  def products(x: jax.Array) -> int:
    kernel = jnp.ones((1, 1, 8, 4))
    jaxpr = jax.make_jaxpr(lambda x: ops.convolve(x, kernel))(x)
    return str(jaxpr).count("dot_general")

  x = jnp.ones((2, 3, 3, 8))
  assert products(x) == 1
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert products(x) == 0


@pytest.mark.parametrize(
  "options",
  [
    {},
    {"use_bias": False},
    {"dtype": jnp.bfloat16},
    {"strides": 2, "padding": 1},
    {"padding": "VALID"},
    {"padding": "CIRCULAR"},
    {"padding": [(0, 1), (2, 0)]},
    {"feature_group_count": 6, "features": 6},
    {"feature_group_count": 2},
    {"kernel_dilation": 2},
    {"kernel_dilation": (1, 2)},
    {"input_dilation": 2, "padding": 1},
    {"precision": "highest"},
    {"kernel_size": (3,)},
    {"kernel_size": (3, 1, 2)},
  ],
  ids=str,
)
def test_conv_is_flax_conv(options: dict[str, Any]) -> None:
  options = dict(
    {
      "features": 4,
      "kernel_size": (3, 3),
      "bias_init": nn.initializers.normal(1.0),
    },
    **options,
  )
  ours, flax = ops.Conv(**options), nn.Conv(**options)
  spatial = (7, 6, 5)[: len(options["kernel_size"])]
  x = np.random.default_rng(0).normal(size=(2, *spatial, 6))

  @quick_jit
  def run(x: jax.Array) -> Any:
    return [m.init_with_output(jax.random.key(0), x) for m in (ours, flax)]

  (y, params), (expected, flax_params) = run(x.astype(np.float32))
  jax.tree.map(assert_array_equal, params, flax_params)
  assert_near(y, expected, 0.02 if "dtype" in options else 2e-5)


def test_conv_of_one_image_and_of_batches_of_batches() -> None:
  conv = ops.Conv(4, (3, 3), 2)

  @quick_jit
  def run(x: jax.Array) -> Any:
    variables = conv.init(jax.random.key(0), x)
    one_by_one = [[conv.apply(variables, x) for x in batch] for batch in x]
    return conv.apply(variables, x), jnp.array(one_by_one)

  x = np.random.default_rng(0).normal(size=(2, 3, 5, 5, 6))
  y, expected = run(x.astype(np.float32))
  assert y.shape == (2, 3, 3, 3, 4)
  assert_near(y, expected)


def test_precision_reaches_xla() -> None:
  x, kernel = jnp.ones((1, 2, 2, 8)), jnp.ones((1, 1, 8, 4))
  jaxpr = jax.make_jaxpr(
    lambda x: ops.convolve(x, kernel, precision=lax.Precision.HIGHEST)
  )(x)
  (convolution,) = jaxpr.eqns
  assert convolution.primitive.name == "conv_general_dilated"
  assert set(convolution.params["precision"]) == {lax.Precision.HIGHEST}


POOLS = [
  ((3, 3), (2, 2), ((1, 1), (1, 1))),
  ((2, 2), (2, 2), UNPADDED),
  ((3, 2), (1, 2), ((0, 2), (1, 0))),
  ((1, 1), (2, 2), UNPADDED),
]


def pool_both(x: np.ndarray, pool: Any) -> tuple[Any, Any]:
  """Value and gradient of our maximum and of Flax's."""

  def run(max_pool: Callable[..., Any], x: jax.Array) -> tuple[Any, Any]:
    y, pull = jax.vjp(lambda x: max_pool(x, *pool), x)
    cotangent = 1.0 + jnp.arange(y.size, dtype=y.dtype).reshape(y.shape)
    return y, pull(cotangent)[0]

  return quick_jit(lambda x: (run(ops.max_pool, x), run(nn.max_pool, x)))(x)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("size", [(7, 6), (2, 2), (2, 3)])
def test_max_pool(size: tuple[int, int], pool: Any) -> None:
  shape = (2, *size, 3)
  # All negative and all different.
  x = -1.0 - np.random.default_rng(0).permutation(math.prod(shape))
  ours, flax = pool_both(x.reshape(shape).astype(np.float32), pool)
  jax.tree.map(assert_array_equal, ours, flax)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_padding_never_wins(dtype: Any) -> None:
  x = jnp.full((1, 2, 2, 1), -1e30, dtype)
  y = ops.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
  assert y.dtype == dtype
  assert_array_equal(y, x[:, :1, :1])


@pytest.mark.parametrize("pool", POOLS)
def test_the_gradient_of_ties_goes_to_one_pixel(pool: Any) -> None:
  # Few values: most windows have ties.
  x = np.random.default_rng(0).integers(3, size=(1, 6, 6, 2))
  ours, flax = pool_both(x.astype(np.float32), pool)
  jax.tree.map(assert_array_equal, ours, flax)


def test_equal_pixels_are_not_averaged() -> None:
  def total(x: jax.Array) -> jax.Array:
    return jnp.sum(ops.max_pool(x, (3, 3), (3, 3)))

  gradient = jax.grad(total)(jnp.zeros((1, 3, 3, 1)))
  assert sorted(np.ravel(gradient)) == [0.0] * 8 + [1.0]


def test_max_pool_elsewhere_is_xlas(monkeypatch: pytest.MonkeyPatch) -> None:
  def primitives() -> str:
    jaxpr = jax.make_jaxpr(lambda x: ops.max_pool(x, (2, 2), (2, 2)))
    return str(jaxpr(jnp.ones((1, 4, 4, 1))))

  assert "reduce_window" not in primitives()
  monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
  assert "reduce_window" in primitives()
