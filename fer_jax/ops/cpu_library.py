"""Builds and loads the C++ CPU kernels in ops/cpu.

The kernels are compiled with the system's C++ compiler at first use, which
takes some seconds, and kept in the user's cache folder, one library per
processor type and set of versions (of jaxlib, the compiler and the C library).
Without a compiler, or with the environment variable FER_JAX_KERNELS=off (or 0,
or false), the package computes with XLA's operations only: the results agree to
float32 accuracy, but training is slower.
"""

import contextlib
import ctypes
import functools
import hashlib
import importlib.resources
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import filelock
import jax
import jax.numpy as jnp
import jaxlib

from fer_jax.errors import UserError
from fer_jax.files import atomic_write, cache_folder

ENVIRONMENT_VARIABLE = "FER_JAX_KERNELS"  # disables the kernels
_SWITCH = {"off": False, "0": False, "false": False}
_SWITCH |= {"": True, "on": True, "1": True, "true": True}
# Names of the functions in the library, which are also their names in JAX.
TARGETS = (
  "fer_jax_convolution",
  "fer_jax_kernel_gradient",
  "fer_jax_depthwise",
  "fer_jax_depthwise_kernel_gradient",
  "fer_jax_stem",
  "fer_jax_stem_kernel_gradient",
  "fer_jax_normalize",
  "fer_jax_norm_sums",
  "fer_jax_norm_gradient",
  "fer_jax_adam",
)
# Further functions, in libraries for processors that multiply bfloat16 tiles.
BFLOAT16_TARGETS = (
  "fer_jax_bfloat16_convolution",
  "fer_jax_bfloat16_kernel_gradient",
)
_FLAGS = (
  "-O3",
  "-march=native",
  "-fno-math-errno",  # else square roots are not vectorized
  "-std=c++17",
  "-shared",
  "-fPIC",
)
_COMPILER_TIMEOUT = 300  # seconds
_CPU_INFO = pathlib.Path("/proc/cpuinfo")
# How its lines begin that name the processor and its instructions: on x86, on
# ARM (the next two) and on RISC-V.
_CPU_FIELDS = ("flags", "Features", "CPU ", "isa", "uarch")
_TEMPORARY = "tmp"  # how names of temporary folders begin
_disabled: list[bool] = []
_bfloat16: list[bool] = []  # one entry if the loaded library has such kernels


def supports(*arrays: jax.Array) -> bool:
  """Returns whether the kernels can compute on some arrays.

  The first call compiles the kernels. They are available on CPU only and for
  non-empty float32 arrays.

  Args:
    *arrays: concrete or traced arrays.
  """
  return (
    jax.default_backend() == "cpu"
    and not _disabled
    and all(x.dtype == jnp.float32 and x.size for x in arrays)
    and not unavailable_reason()
  )


@contextlib.contextmanager
def disabled() -> Iterator[None]:
  """Traces functions without the kernels, for a program that leaves here.

  An exported program, for example, must not refer to the compiled library.
  """
  _disabled.append(True)
  try:
    yield
  finally:
    _disabled.pop()


def multiplies_bfloat16() -> bool:
  """Returns whether there are kernels with products in bfloat16.

  The processor needs instructions for matrix products in bfloat16: Intel's
  AMX, in its servers since 2023.
  """
  return not unavailable_reason() and bool(_bfloat16)


@functools.cache
def unavailable_reason() -> str:
  """Returns why the kernels are not available, or "" if they are.

  The first call compiles the kernels if need be, and registers them with JAX.

  Raises:
    UserError: the environment variable has another value than on or off.
  """
  setting = os.environ.get(ENVIRONMENT_VARIABLE, "")
  if setting.lower() not in _SWITCH:
    raise UserError(f"{ENVIRONMENT_VARIABLE}={setting} must be on or off")
  if not _SWITCH[setting.lower()]:
    return f"{ENVIRONMENT_VARIABLE}={setting}"
  compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
  if not compiler:
    return "no C++ compiler was found (c++, g++, or CXX=...)"
  try:
    path = _build(compiler)
  except subprocess.SubprocessError as e:
    said = e.stderr if isinstance(e, subprocess.CalledProcessError) else ""
    return f"{compiler} failed: {(said.strip() or str(e)).splitlines()[-1]}"
  except OSError as e:
    return (
      f"the cache {cache_folder() / 'kernels'} cannot be used ({e}): set"
      " XDG_CACHE_HOME to a folder that can be written"
    )
  try:
    library = ctypes.cdll.LoadLibrary(str(path))
  except OSError as e:
    return f"{compiler} built a library that cannot be loaded: {e}"
  library.fer_jax_request_bfloat16.restype = ctypes.c_bool
  if library.fer_jax_request_bfloat16():
    _bfloat16.append(True)
  for target in TARGETS + (BFLOAT16_TARGETS if _bfloat16 else ()):
    handler = jax.ffi.pycapsule(getattr(library, target))
    jax.ffi.register_ffi_target(target, handler, platform="cpu")
  return ""


def _build(compiler: str) -> pathlib.Path:
  """Returns the library for this machine, compiled unless it is cached.

  A home may be shared by machines and containers whose libraries of C and C++
  differ: the latter's version is the compiler's.
  """
  source = importlib.resources.files("fer_jax.ops") / "cpu"
  with importlib.resources.as_file(source) as code:
    version, *_ = _run(compiler, "--version").splitlines() or [""]
    versions = (jaxlib.__version__, *platform.libc_ver(), version)
    inputs = (compiler, *_FLAGS, *versions, _processor())
    digest = hashlib.sha256("\n".join(inputs).encode())
    for path in sorted(code.glob("*.[ch]*")):
      digest.update(path.read_bytes())
    library = cache_folder() / "kernels" / f"{digest.hexdigest()[:16]}.so"
    if _is_whole(library):
      return library
    library.parent.mkdir(parents=True, exist_ok=True)
    with _building(library.parent) as folder:
      if not _is_whole(library):  # Another process may have built it.
        _compile(compiler, code / "kernels.cc", library, folder)
    return library


def _compile(
  compiler: str, source: pathlib.Path, library: pathlib.Path, folder: str
) -> None:
  """Compiles the library and writes its checksum, both atomically.

  Args:
    compiler: the command, which may have options ("ccache g++").
    source: the file to compile.
    library: the result.
    folder: for the compiler's temporary files.

  Raises:
    SubprocessError: the compiler cannot be run, or it failed.
    OSError: the library cannot be written.
  """
  headers = ("-isystem", jax.ffi.include_dir())
  built = pathlib.Path(folder, library.name)
  arguments = (*_FLAGS, *headers, str(source), "-o", str(built))
  _run(compiler, *arguments, TMPDIR=folder)
  with atomic_write(library) as temporary:
    built.rename(temporary)
  with atomic_write(_digest_file(library)) as temporary:
    temporary.write_text(_digest(library))


def _run(compiler: str, *arguments: str, **environment: str) -> str:
  """Runs a compiler, and returns what it prints.

  Raises:
    SubprocessError: it cannot be run, or it failed.
  """
  try:
    command = [compiler] if shutil.which(compiler) else shlex.split(compiler)
    return subprocess.run(
      [*command, *arguments],
      check=True,
      capture_output=True,
      text=True,
      timeout=_COMPILER_TIMEOUT,
      env={**os.environ, **environment},
    ).stdout
  except (OSError, ValueError) as e:  # Not found, or unbalanced quotes.
    raise subprocess.SubprocessError(str(e)) from e


@contextlib.contextmanager
def _building(cache: pathlib.Path) -> Iterator[str]:
  """Yields a temporary folder; one process builds at a time.

  What builds that were killed left in the cache is removed.
  """
  lock = filelock.FileLock(cache / ".lock")
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(lock.acquire(timeout=_COMPILER_TIMEOUT))
    except (filelock.Timeout, NotImplementedError):
      pass  # A file system without locks, or a build that hangs.
    else:
      for left_over in cache.glob(f"{_TEMPORARY}*"):
        shutil.rmtree(left_over, ignore_errors=True)
    yield stack.enter_context(
      tempfile.TemporaryDirectory(
        prefix=_TEMPORARY, dir=cache, ignore_cleanup_errors=True
      )
    )


def _is_whole(library: pathlib.Path) -> bool:
  """Returns whether a library is the one that was compiled.

  Loading a truncated one would end the process.
  """
  try:
    return _digest_file(library).read_text() == _digest(library)
  except (OSError, ValueError):
    return False


def _digest_file(library: pathlib.Path) -> pathlib.Path:
  return library.with_suffix(".sha256")


def _digest(library: pathlib.Path) -> str:
  return hashlib.sha256(library.read_bytes()).hexdigest()


def _processor() -> str:
  """Returns a description of what `-march=native` depends on."""
  try:
    lines = _CPU_INFO.read_text().splitlines()
  except OSError:  # not Linux
    return platform.platform() + platform.processor()
  # Cores may differ, and their order must not matter.
  cores = {line for line in lines if line.startswith(_CPU_FIELDS)}
  return "\n".join([platform.machine(), *sorted(cores)])
