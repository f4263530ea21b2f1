"""Caches that are damaged, and users without a home."""

import pathlib
import shutil
import subprocess
import sys

import pytest

from fer_jax import files
from fer_jax.ops import cpu_library

needs_compiler = pytest.mark.skipif(
  not (shutil.which("c++") or shutil.which("g++")), reason="no C++ compiler"
)


@needs_compiler
def test_a_damaged_kernel_library_is_built_again(tmp_path, monkeypatch):
  def compile_quickly(command, **_):
    pathlib.Path(command[-1]).write_bytes(b"library")
    built.append(command)

  built: list[list[str]] = []
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(cpu_library.subprocess, "run", compile_quickly)
  library = cpu_library._build("c++")
  assert cpu_library._build("c++") == library and len(built) == 1
  for damaged in (b"", b"librarz", b"libr"):
    library.write_bytes(damaged)
    cpu_library._build("c++")
    assert library.read_bytes() == b"library"
  library.with_suffix(".sha256").unlink()
  cpu_library._build("c++")
  assert len(built) == 5


def test_a_user_without_a_home_has_a_temporary_cache(monkeypatch):
  def unknown() -> pathlib.Path:
    raise RuntimeError("Could not determine home directory.")

  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.setattr(pathlib.Path, "home", unknown)
  folder = files.cache_folder()
  assert folder.is_dir() and files.cache_folder() == folder


def test_a_torn_compiled_program_is_compiled_again(tmp_path):
  code = (
    "import jax, warnings, pathlib, sys;"
    "warnings.simplefilter('ignore');"
    "from fer_jax.training.runtime import compilation_cache as cache;"
    "folder = cache.use_cache(sys.argv[1]);"
    "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0);"
    "print(float(jax.jit(lambda x: x * 3 + 1)(2.0)))"
  )

  def run() -> str:
    done = subprocess.run(
      [sys.executable, "-c", code, str(tmp_path)],
      capture_output=True,
      text=True,
      check=True,
    )
    return done.stdout.strip()

  assert run() == "7.0"
  entries = [path for path in tmp_path.iterdir() if path.is_file()]
  assert entries
  for path in entries:
    path.write_bytes(path.read_bytes()[:20])
  assert run() == "7.0"
