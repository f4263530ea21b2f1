"""Kernels of our own for CPUs, in cpu/: compiled at first use, and kept.

XLA's CPU back end takes tens of times as long as it need for the kernel
gradient of a depthwise convolution, and several times as long for others and
for BatchNorm, whose results it computes again wherever they are used. The
kernels need a C++ compiler once; without one all of this is XLA's own and
slower. FER_JAX_KERNELS=off forbids them.
"""

import contextlib
import ctypes
import functools
import hashlib
import importlib.resources
import os
import pathlib
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jaxtyping import Array, Float

from fer_jax.ops import lowerings
from fer_jax.ops.lowerings import Pads, Strides, output_size

NORMALIZE = "fer_jax_normalize"
NORM_SUMS = "fer_jax_norm_sums"
NORM_GRADIENT = "fer_jax_norm_gradient"
WIDTH = 32  # channels are multiples of it where `convolution` is our own
FEW = 12  # rows (places of all images): weights are then read once for all
SETTING = "FER_JAX_KERNELS"  # "off" forbids them
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")
_TIMEOUT = 300  # seconds for the compiler


def serve(*arrays: jax.Array) -> bool:
  """Whether the kernels can work on arrays; compiles them when first asked.

  Args:
    arrays: of a computation, concrete or traced.
  """
  return (
    jax.default_backend() == "cpu"
    and not _forbidden
    and all(x.dtype == jnp.float32 and x.size for x in arrays)
    and not why_not()
  )


_forbidden: list[bool] = []


@contextlib.contextmanager
def forbid() -> Iterator[None]:
  """Traces without the kernels, as for a program that runs elsewhere."""
  _forbidden.append(True)
  try:
    yield
  finally:
    _forbidden.pop()


@functools.cache
def why_not() -> str:
  """Why there are no kernels; "" where there are."""
  if os.environ.get(SETTING, "") == "off":
    return f"{SETTING}=off"
  compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
  if not compiler:
    return "no C++ compiler was found (c++, g++, or CXX=...)"
  try:
    library = ctypes.cdll.LoadLibrary(str(_library(compiler)))
  except (OSError, subprocess.SubprocessError) as e:
    said = getattr(e, "stderr", None) or str(e)
    return f"{compiler} failed: {said.strip().splitlines()[-1]}"
  targets = [name for pair in _KINDS for name in pair[:2]]
  for name in (*targets, NORMALIZE, NORM_SUMS, NORM_GRADIENT):
    handler = jax.ffi.pycapsule(getattr(library, name))
    jax.ffi.register_ffi_target(name, handler, platform="cpu")
  return ""


def _library(compiler: str) -> pathlib.Path:
  """The compiled kernels, of this machine and these versions."""
  source = importlib.resources.files("fer_jax.ops") / "cpu"
  with importlib.resources.as_file(source) as code:
    made_of = (compiler, *_FLAGS, jaxlib.__version__, _processor())
    digest = hashlib.sha256("\n".join(made_of).encode())
    for path in sorted(code.glob("*.[ch]*")):
      digest.update(path.read_bytes())
    cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    folder = pathlib.Path(cache) / "fer_jax" / "kernels"
    library = folder / f"{digest.hexdigest()[:16]}.so"
    if library.exists():
      return library
    folder.mkdir(parents=True, exist_ok=True)
    headers = ("-isystem", jax.ffi.include_dir())
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
      made = pathlib.Path(scratch) / "kernels.so"
      subprocess.run(
        [compiler, *_FLAGS, *headers, str(code / "kernels.cc"), "-o", made],
        check=True,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
      )
      return made.rename(library)  # Whoever is last of several wins.


def _processor() -> str:
  """What `-march=native` depends on."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:  # not Linux
    return platform.platform() + platform.processor()
  return next((line for line in lines if line.startswith("flags")), "")


def depthwise(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw 1 c"],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow c"]:
  """A depthwise convolution, of which XLA does what the kernels cannot."""
  if serve(x, kernel):
    return _own(_DEPTHWISE, strides, pads, x, kernel)
  return lowerings.depthwise(x, kernel, strides, pads)


def convolution(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw c k"],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow k"]:
  """A convolution, of which XLA does what the kernels cannot."""
  whole = all(n % WIDTH == 0 for n in kernel.shape[2:])
  if whole and serve(x, kernel):
    return _own(_CONVOLUTION, strides, pads, x, kernel)
  return lowerings.shifted(x, kernel, strides, pads)


def stem(
  x: Float[Array, "b h w c"],
  kernel: Float[Array, "kh kw c k"],
  strides: Strides,
  pads: Pads,
) -> Float[Array, "b oh ow k"]:
  """A convolution of images of few channels; see `convolution`."""
  if kernel.shape[3] % WIDTH == 0 and serve(x, kernel):
    return _own(_STEM, strides, pads, x, kernel)
  return lowerings.native(x, kernel, strides, pads)


class _Pair(NamedTuple):
  """Targets of one kind of convolution."""

  convolution: str
  kernel_gradient: str
  transposes: bool = True  # whether `convolution` does the input's gradient


_DEPTHWISE = _Pair("fer_jax_depthwise", "fer_jax_depthwise_kernel_gradient")
_CONVOLUTION = _Pair("fer_jax_convolution", "fer_jax_kernel_gradient")
_STEM = _Pair("fer_jax_stem", "fer_jax_stem_kernel_gradient", transposes=False)
_KINDS = (_DEPTHWISE, _CONVOLUTION, _STEM)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _own(
  pair: _Pair, strides: Strides, pads: Pads, x: Array, kernel: Array
) -> Array:
  height, width = output_size(x.shape, kernel.shape, strides, pads)
  shape = (x.shape[0], height, width, kernel.shape[3])
  where: dict[str, Any] = _geometry(strides, pads)
  if pair.transposes:
    where["transposed"] = False
  return _call(pair.convolution, _float32(shape), x, kernel, **where)


def _own_forward(
  pair: _Pair, strides: Strides, pads: Pads, x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
  return _own(pair, strides, pads, x, kernel), (x, kernel)


def _own_backward(
  pair: _Pair,
  strides: Strides,
  pads: Pads,
  saved: tuple[Array, Array],
  gradient: Array,
) -> tuple[Array, Array]:
  x, kernel = saved
  where = _geometry(strides, pads)
  if pair.transposes:
    to_input = _call(
      pair.convolution,
      _float32(x.shape),
      gradient,
      kernel,
      transposed=True,
      **where,
    )
  else:  # seldom wanted: of the images
    _, pull = jax.vjp(
      lambda x: lowerings.space_to_depth(x, kernel, strides, pads), x
    )
    (to_input,) = pull(gradient)
  to_kernel = _call(
    pair.kernel_gradient, _float32(kernel.shape), x, gradient, **where
  )
  return to_input, to_kernel


_own.defvjp(_own_forward, _own_backward)


def _call(target: str, result: Any, *args: Array, **attributes: Any) -> Any:
  call = jax.ffi.ffi_call(target, result, vmap_method="sequential")
  return call(*args, **attributes)


def _geometry(strides: Strides, pads: Pads) -> dict[str, np.int64]:
  return {
    "stride_h": np.int64(strides[0]),
    "stride_w": np.int64(strides[1]),
    "top": np.int64(pads[0][0]),
    "left": np.int64(pads[1][0]),
  }


def _float32(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, jnp.float32)
