"""Tests of the C++ CPU kernels against XLA's operations."""

import os
import pathlib
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fer_jax import models
from fer_jax.errors import UserError
from fer_jax.ops import (
  batch_norm,
  convolution,
  cpu_kernels,
  cpu_library,
  cpu_norm_kernels,
  dispatch,
  lowerings,
)

needs_kernels = pytest.mark.skipif(
  bool(cpu_library.unavailable_reason()),
  reason=f"no kernels: {cpu_library.unavailable_reason()}",
)
needs_bfloat16 = pytest.mark.skipif(
  not cpu_library.multiplies_bfloat16(),
  reason="the processor has no instructions for products in bfloat16",
)


def random(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), "float32")


def value_and_gradients(function, x, kernel, strides, pads, dtype="float32"):
  """The output, and both gradients of a random direction in it.

  All operands are first rounded to a dtype.
  """
  rounded = lambda x: x.astype(dtype).astype("float32")  # noqa: E731

  def run(x, kernel):
    y, pull = jax.vjp(lambda x, k: function(x, k, strides, pads), x, kernel)
    return y, *pull(rounded(random(2, *y.shape)))

  return jax.jit(run)(rounded(x), rounded(kernel))


def assert_agree(own, reference):
  for one, other in zip(own, reference, strict=True):
    scale = jnp.abs(other).max()
    np.testing.assert_allclose(one, other, atol=4e-6 * float(scale), rtol=0)


def uses(target, function, *args):
  return target in jax.jit(function).lower(*args).as_text()


SAME = ((1, 1), (1, 1))
UNEVEN = ((0, 1), (2, 0))


@needs_kernels
@pytest.mark.parametrize(
  ("shape", "side", "strides", "pads"),
  [
    ((5, 6, 6, 64), 3, (1, 1), SAME),
    ((13, 5, 7, 20), 3, (2, 1), SAME),  # channels past the last whole vector
    ((2, 7, 5, 16), 3, (2, 2), UNEVEN),
    ((3, 9, 9, 100), 5, (2, 2), ((2, 2), (2, 2))),
    ((20, 2, 2, 7), 3, (1, 1), SAME),
    ((3, 4, 4, 16), 1, (3, 3), ((0, 0), (0, 0))),  # steps over pixels
  ],
)
def test_depthwise(shape, side, strides, pads):
  x, kernel = random(0, *shape), random(1, side, side, 1, shape[-1])
  run = lambda x, kernel: cpu_kernels.depthwise(x, kernel, strides, pads)  # noqa: E731
  assert uses("fer_jax_depthwise", run, x, kernel)
  assert_agree(
    value_and_gradients(cpu_kernels.depthwise, x, kernel, strides, pads),
    value_and_gradients(lowerings.depthwise, x, kernel, strides, pads),
  )


@needs_kernels
@pytest.mark.parametrize(
  ("shape", "outputs", "side", "strides", "pads"),
  [
    ((13, 6, 6, 32), 64, 3, (1, 1), SAME),
    ((64, 2, 2, 64), 32, 3, (1, 1), SAME),
    ((5, 7, 6, 96), 32, 3, (2, 2), SAME),
    ((2, 8, 5, 32), 32, 3, (2, 1), UNEVEN),
    ((3, 5, 5, 288), 320, 1, (1, 1), ((0, 0), (0, 0))),  # deeper than a tile
    ((3, 5, 5, 64), 32, 1, (2, 2), ((0, 0), (0, 0))),
    ((1, 9, 9, 32), 32, 7, (2, 2), ((3, 3), (3, 3))),
    ((1, 3, 3, 288), 96, 3, (1, 1), SAME),  # few rows
    ((3, 3, 3, 32), 32, 3, (2, 2), UNEVEN),
  ],
)
def test_convolution(shape, outputs, side, strides, pads):
  x, kernel = random(0, *shape), random(1, side, side, shape[-1], outputs)
  run = lambda x, kernel: cpu_kernels.convolution(x, kernel, strides, pads)  # noqa: E731
  assert uses("fer_jax_convolution", run, x, kernel)
  assert_agree(
    value_and_gradients(cpu_kernels.convolution, x, kernel, strides, pads),
    value_and_gradients(lowerings.shift_and_add, x, kernel, strides, pads),
  )


@needs_bfloat16
@pytest.mark.parametrize(
  ("shape", "outputs", "side", "strides", "pads"),
  [
    ((32, 6, 6, 32), 64, 3, (1, 1), SAME),
    ((64, 2, 2, 64), 32, 3, (1, 1), SAME),
    ((17, 7, 6, 96), 32, 3, (2, 2), SAME),  # some of the 32 rows are empty
    ((45, 8, 5, 32), 32, 3, (2, 1), UNEVEN),
    ((70, 12, 12, 64), 128, 3, (1, 1), SAME),  # several sums of the gradient
    ((33, 5, 5, 288), 320, 1, (2, 2), ((0, 0), (0, 0))),
    ((35, 41, 41, 32), 64, 3, (1, 1), SAME),  # positions far apart
    ((32, 2, 2, 32), 32, 1, (1, 1), ((1, 0), (0, 1))),  # padding only
  ],
)
def test_bfloat16_products(shape, outputs, side, strides, pads):
  x, kernel = random(0, *shape), random(1, side, side, shape[-1], outputs)
  own = lambda x, k: cpu_kernels.bfloat16_convolution(x, k, strides, pads)  # noqa: E731
  assert uses("fer_jax_bfloat16_convolution", own, x, kernel)
  sizes = strides, pads
  assert_agree(
    value_and_gradients(cpu_kernels.bfloat16_convolution, x, kernel, *sizes),
    value_and_gradients(cpu_kernels.convolution, x, kernel, *sizes, "bfloat16"),
  )


@needs_bfloat16
def test_products_are_in_bfloat16_where_that_pays():
  def lowered(images, dtype="bfloat16"):
    def run(x, kernel):
      with dispatch.product_dtype(dtype):
        return jnp.sum(convolution.convolve(x, kernel))

    x, kernel = random(0, images, 6, 6, 32), random(1, 3, 3, 32, 64)
    return jax.jit(jax.grad(run, (0, 1))).lower(x, kernel).as_text()

  assert "bfloat16_kernel_gradient" in lowered(32)
  assert "bfloat16" not in lowered(8)
  assert "bfloat16" not in lowered(32, "float32")


def test_without_instructions_products_are_in_float32(monkeypatch):
  monkeypatch.setattr(cpu_library, "_bfloat16", [])
  x, kernel = random(0, 32, 6, 6, 32), random(1, 3, 3, 32, 64)
  exact = convolution.convolve(x, kernel)
  with dispatch.product_dtype("bfloat16"):
    y = convolution.convolve(x, kernel)
  np.testing.assert_array_equal(y, exact)


@needs_kernels
@pytest.mark.parametrize(
  ("shape", "outputs", "side", "strides", "pads"),
  [
    ((5, 13, 12, 1), 64, 7, (2, 2), ((3, 3), (3, 3))),
    ((13, 9, 10, 1), 32, 3, (1, 1), SAME),
    ((2, 9, 7, 3), 96, 5, (2, 1), UNEVEN),
    ((9, 12, 12, 3), 32, 3, (2, 2), ((0, 1), (0, 1))),
    ((1, 6, 6, 4), 32, 2, (3, 3), ((0, 0), (0, 0))),
  ],
)
def test_stem(shape, outputs, side, strides, pads):
  x, kernel = random(0, *shape), random(1, side, side, shape[-1], outputs)
  run = lambda x, kernel: cpu_kernels.stem(x, kernel, strides, pads)  # noqa: E731
  assert uses("fer_jax_stem", run, x, kernel)
  assert_agree(
    value_and_gradients(cpu_kernels.stem, x, kernel, strides, pads),
    value_and_gradients(lowerings.im2col, x, kernel, strides, pads),
  )


@needs_kernels
@pytest.mark.parametrize("shape", [(9, 3, 5, 70), (1000, 16), (3, 40), (1, 5)])
def test_sums_of_norms(shape):
  a, b, shift = random(0, *shape), random(1, *shape) + 3, random(2, shape[-1])
  clamp = (-np.inf, np.inf)
  total, products, _ = cpu_norm_kernels.norm_sums(a, b, b, shift, clamp)
  a, b = (np.float64(v).reshape(-1, shape[-1]) for v in (a, b))
  scale = np.abs(a).sum(0)
  assert np.all(np.abs(total - a.sum(0)) < 1e-6 * scale)
  expected = a * (b - np.float64(shift))
  scale = np.abs(expected).sum(0)
  assert np.all(np.abs(products - expected.sum(0)) < 1e-6 * scale)


@needs_kernels
def test_results_are_deterministic():
  """Threads take blocks in any order, but sums are added in a fixed one."""
  x, kernel = random(0, 16, 12, 12, 32), random(1, 3, 3, 32, 32)
  one = value_and_gradients(cpu_kernels.convolution, x, kernel, (1, 1), SAME)
  for _ in range(5):
    two = value_and_gradients(cpu_kernels.convolution, x, kernel, (1, 1), SAME)
    jax.tree.map(np.testing.assert_array_equal, one, two)


@needs_kernels
def test_a_mapped_convolution():
  x, kernel = random(0, 3, 2, 5, 5, 32), random(1, 3, 3, 1, 32)
  scales = jnp.arange(1.0, 4.0)

  def run(x, scale):
    return cpu_kernels.depthwise(x, kernel * scale, (1, 1), SAME)

  mapped = jax.vmap(run)(x, scales)
  for i in range(3):
    np.testing.assert_allclose(mapped[i], run(x[i], scales[i]), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_other_dtypes_are_computed_by_xla(dtype):
  x, kernel = random(0, 2, 4, 4, 32).astype(dtype), jnp.ones((3, 3, 1, 32))
  run = lambda x, kernel: cpu_kernels.depthwise(x, kernel, (1, 1), SAME)  # noqa: E731
  assert not uses("fer_jax", run, x, kernel.astype(dtype))


def outputs_and_gradients(module, variables, x, residual=None):
  """The output, and all gradients of a weighted sum of it."""
  fixed = {k: v for k, v in variables.items() if k != "params"}

  def run(params, x, residual):
    y, seen = module.apply(
      {"params": params, **fixed}, x, residual=residual, mutable=[*fixed]
    )
    weights = random(3, *y.shape)
    return (y * weights).sum(), (y, seen)

  gradients, (y, seen) = jax.jit(
    jax.grad(run, argnums=(0, 1, 2), has_aux=True)
  )(variables["params"], x, residual)
  return jax.tree.leaves((y, seen, gradients))


def norm_variables(module, x):
  shape = x.shape[-1:]
  return {
    "params": {"scale": random(4, *shape), "bias": random(5, *shape)},
    "batch_stats": {"mean": random(6, *shape), "var": random(7, *shape) ** 2},
  }


@needs_kernels
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@pytest.mark.parametrize("adds", [False, True])
@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("shape", [(6, 5, 5, 48), (64, 20), (40, 8, 8, 72)])
def test_batch_norm_equals_that_of_flax(shape, running, adds, activation):
  x = 3 * random(0, *shape) + 1
  residual = random(1, *shape) if adds else None
  module = batch_norm.BatchNorm(
    use_running_average=running, momentum=0.9, activation=activation
  )
  variables = norm_variables(module, x)
  own = outputs_and_gradients(module, variables, x, residual)
  with cpu_library.disabled():  # Then it is `nn.BatchNorm`.
    reference = outputs_and_gradients(module, variables, x, residual)
  for one, other in zip(own, reference, strict=True):
    scale = float(jnp.abs(other).max())
    np.testing.assert_allclose(one, other, atol=1e-5 * scale, rtol=0)


@needs_kernels
def test_add_relu_equals_that_of_flax():
  x, residual = random(0, 3, 5, 5, 40), random(1, 3, 5, 5, 40)
  assert_agree(
    jax.vjp(batch_norm.add_relu, x, residual)[1](x),
    jax.vjp(lambda x, y: nn.relu(x + y), x, residual)[1](x),
  )
  np.testing.assert_array_equal(
    batch_norm.add_relu(x, residual), nn.relu(x + residual)
  )


@needs_kernels
def test_batch_norm_over_devices_equals_that_of_the_global_batch():
  x, residual = random(0, 8, 4, 4, 16), random(1, 8, 4, 4, 16)
  whole = batch_norm.BatchNorm(use_running_average=False, activation="relu")
  variables = norm_variables(whole, x)
  parts = whole.clone(axis_name="batch")

  def run(module, x, residual, weights):
    def output(x, residual):
      y, seen = module.apply(
        variables, x, residual=residual, mutable=["batch_stats"]
      )
      return (y * weights).sum(), (y, seen)

    return jax.grad(output, (0, 1), has_aux=True)(x, residual)

  arrays = x, residual, random(2, *x.shape)
  gradients, (y, seen) = run(whole, *arrays)
  split = [array.reshape(4, 2, 4, 4, 16) for array in arrays]
  of_parts, (y_of_parts, seen_of_parts) = jax.pmap(
    lambda *arrays: run(parts, *arrays), axis_name="batch"
  )(*split)
  for one, other in zip((y_of_parts, *of_parts), (y, *gradients), strict=True):
    np.testing.assert_allclose(one.reshape(x.shape), other, atol=1e-5)
  jax.tree.map(
    lambda one, all: np.testing.assert_allclose(one[0], all, atol=1e-6),
    seen_of_parts,
    seen,
  )


@needs_kernels
def test_the_output_of_a_block_is_not_recomputed():
  """XLA would recompute all preceding blocks: quadratic work in depth."""
  model = models.create("resnet34", 7)
  x = random(0, 2, 32, 32, 1)
  variables = jax.eval_shape(model.init, jax.random.key(0), x)
  run = jax.jit(model.apply).lower(variables, x).compile()
  sizes = [
    line.count("%") - 1
    for line in (run.as_text() or "").splitlines()
    if " fusion(" in line
  ]
  assert sizes and max(sizes) < 12


@needs_kernels
def test_disabled():
  x, kernel = random(0, 2, 8, 8, 32), random(1, 3, 3, 32, 32)
  with cpu_library.disabled():
    assert not uses(
      "fer_jax", lambda x, k: convolution.convolve(x, k), x, kernel
    )
  assert uses("fer_jax", lambda x, k: convolution.convolve(x, k), x, kernel)


@pytest.mark.parametrize(
  ("settings", "reason"),
  [
    ({"FER_JAX_KERNELS": "off"}, "FER_JAX_KERNELS=off"),
    ({"CXX": "/nowhere/c++"}, "/nowhere/c++"),
    ({"CXX": "false"}, "false failed"),
  ],
)
def test_without_kernels_xla_computes_everything(
  tmp_path, monkeypatch, settings, reason
):
  for name, value in {**settings, "XDG_CACHE_HOME": str(tmp_path)}.items():
    monkeypatch.setenv(name, value)
  code = (
    "from fer_jax.ops import cpu_library, convolution;"
    "import jax, jax.numpy as jnp;"
    "x, k = jnp.ones((2, 6, 6, 32)), jnp.ones((3, 3, 32, 32));"
    "print(cpu_library.unavailable_reason());"
    "print('fer_jax' in jax.jit(convolution.convolve).lower(x, k).as_text())"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True
  )
  why, used = done.stdout.strip().splitlines()
  assert reason in why and used == "False"


def reason_with(monkeypatch, setting: str) -> str:
  monkeypatch.setenv("FER_JAX_KERNELS", setting)
  return cpu_library.unavailable_reason.__wrapped__()


@pytest.mark.parametrize("setting", ["off", "OFF", "0", "False"])
def test_the_kernels_are_switched_off(monkeypatch, setting):
  assert reason_with(monkeypatch, setting) == f"FER_JAX_KERNELS={setting}"


@pytest.mark.parametrize("setting", ["", "on", "1", "TRUE"])
def test_the_kernels_are_switched_on(monkeypatch, setting):
  monkeypatch.setattr(cpu_library.shutil, "which", lambda name: None)
  monkeypatch.delenv("CXX", raising=False)
  assert "no C++ compiler" in reason_with(monkeypatch, setting)


def test_other_settings_of_the_kernels_are_errors(monkeypatch):
  message = "FER_JAX_KERNELS=none must be on or off"
  with pytest.raises(UserError, match=message):
    reason_with(monkeypatch, "none")


@needs_kernels
def test_convolve_uses_the_kernels_except_under_use_xla():
  x, kernel = random(0, 2, 12, 12, 32), random(1, 3, 3, 32, 32)
  text = jax.jit(convolution.convolve).lower(x, kernel).as_text()
  assert "fer_jax_convolution" in text
  with dispatch.use_xla():
    text = (
      jax.jit(lambda x, k: convolution.convolve(x, k))
      .lower(x, kernel)
      .as_text()
    )
  assert "fer_jax" not in text
  expected = lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  np.testing.assert_allclose(
    convolution.convolve(x, kernel), expected, atol=1e-4
  )


FAILING_KERNEL = """
#include <chrono>
#include <thread>

namespace ffi = xla::ffi;

ffi::Error Fail(ffi::ThreadPool pool, ffi::Result<ffi::AnyBuffer>) {
  fer_jax::ParallelFor(pool, 64, [](int64_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    throw std::bad_alloc();
  });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    fail, fer_jax::Guarded(Fail),
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Ret<ffi::AnyBuffer>());
"""
CALL_IT = """
import ctypes, sys, jax
fail = jax.ffi.pycapsule(ctypes.cdll.LoadLibrary(sys.argv[1]).fail)
jax.ffi.register_ffi_target("fail", fail, platform="cpu")
call = jax.ffi.ffi_call("fail", jax.ShapeDtypeStruct((2,), "float32"))
for _ in range(3):
  try:
    jax.jit(call)().block_until_ready()
  except jax.errors.JaxRuntimeError as e:
    print(e)
"""


@needs_kernels
def test_allocations_that_fail_in_threads_are_errors(tmp_path):
  folder = pathlib.Path(cpu_library.__file__).parent / "cpu"
  headers = "".join(
    f'#include "{folder / name}"\n' for name in ("handler.h", "parallel.h")
  )
  source, library = tmp_path / "fail.cc", tmp_path / "fail.so"
  source.write_text(headers + FAILING_KERNEL)
  compiler = os.environ.get("CXX") or "c++"
  cpu_library._compile(compiler, source, library, str(tmp_path))
  done = subprocess.run(
    [sys.executable, "-c", CALL_IT, library],
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  errors = done.stdout.splitlines()
  assert len(errors) == 3
  assert all(e.startswith("RESOURCE_EXHAUSTED: Out of memory") for e in errors)
