"""Caches that are damaged, and users without a home."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
from jax._src import compilation_cache

from fer_jax import files
from fer_jax.ops import cpu_library
from fer_jax.training.runtime.checked_cache import CheckedCache

needs_compiler = pytest.mark.skipif(
  not (shutil.which("c++") or shutil.which("g++")), reason="no C++ compiler"
)


@needs_compiler
def test_a_damaged_kernel_library_is_built_again(tmp_path, monkeypatch):
  built = compile_quickly(monkeypatch, tmp_path)
  library = cpu_library._build("c++")
  assert cpu_library._build("c++") == library and len(built) == 1
  for damaged in (b"", b"librarz", b"libr"):
    library.write_bytes(damaged)
    cpu_library._build("c++")
    assert library.read_bytes() == b"library"
  library.with_suffix(".sha256").unlink()
  cpu_library._build("c++")
  assert len(built) == 5


@needs_compiler
def test_what_killed_builds_leave_is_removed(tmp_path, monkeypatch):
  compile_quickly(monkeypatch, tmp_path)
  left_over = tmp_path / "fer_jax" / "kernels" / "tmpabcd"
  left_over.mkdir(parents=True)
  (left_over / "cc1234.s").write_text("")
  library = cpu_library._build("c++")
  names = {path.name for path in library.parent.iterdir()} - {".lock"}
  assert names == {library.name, library.with_suffix(".sha256").name}


def test_arm_processors_have_libraries_of_their_own(tmp_path, monkeypatch):
  def processor(*cores: str) -> str:
    text = "\n".join(
      f"processor\t: {i}\nFeatures\t: fp asimd\nCPU part\t: {part}\n"
      for i, part in enumerate(cores)
    )
    (tmp_path / "cpuinfo").write_text(text)
    return cpu_library._processor()

  monkeypatch.setattr(cpu_library, "_CPU_INFO", tmp_path / "cpuinfo")
  assert processor("0xd0c", "0xd0c") != processor("0xd40", "0xd40")
  assert processor("0xd0c", "0xd40") == processor("0xd40", "0xd0c")


def test_a_compiler_may_have_options(tmp_path, monkeypatch):
  built = compile_quickly(monkeypatch, tmp_path)
  cpu_library._build("ccache c++ -O2")
  assert built[0][:4] == ["ccache", "c++", "-O2", "-O3"]
  spaced = tmp_path / "my compilers" / "c++"
  spaced.parent.mkdir()
  spaced.touch(0o755)
  cpu_library._build(str(spaced))
  assert built[1][:2] == [str(spaced), "-O3"]


def test_other_versions_have_libraries_of_their_own(tmp_path, monkeypatch):
  compile_quickly(monkeypatch, tmp_path)
  first = cpu_library._build("c++")
  with monkeypatch.context() as patch:
    patch.setattr(cpu_library.platform, "libc_ver", lambda: ("glibc", "2.17"))
    assert cpu_library._build("c++") != first
  compile_quickly(monkeypatch, tmp_path, version="c++ 9.4.0\n")
  assert cpu_library._build("c++") != first


def no_kernels_reason(monkeypatch, compiler: str) -> str:
  monkeypatch.setenv("CXX", compiler)
  monkeypatch.delenv(cpu_library.ENVIRONMENT_VARIABLE, raising=False)
  return cpu_library.unavailable_reason.__wrapped__()


def test_an_unusable_cache_is_not_the_compilers_fault(tmp_path, monkeypatch):
  (tmp_path / "file").touch()
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  reason = no_kernels_reason(monkeypatch, "c++")
  assert reason.startswith(f"the cache {tmp_path}/file/fer_jax/kernels cannot")
  assert "Not a directory" in reason and "XDG_CACHE_HOME" in reason


@pytest.mark.skipif(os.name != "posix", reason="runs a shell script")
def test_compilers_that_say_nothing_or_cannot_be_run(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  silent = tmp_path / "c++"
  silent.write_text("#!/bin/sh\necho >&2\nexit 1\n")
  silent.chmod(0o755)
  assert "exit status 1" in no_kernels_reason(monkeypatch, str(silent))
  assert "No closing quotation" in no_kernels_reason(monkeypatch, "c++ '")
  junk = tmp_path / "junk"
  junk.write_text(
    "#!/bin/sh\nfor last; do :; done\n"
    '[ "$last" = --version ] || echo junk > "$last"\n'
  )
  junk.chmod(0o755)
  reason = no_kernels_reason(monkeypatch, str(junk))
  assert reason.startswith(f"{junk} built a library that cannot be loaded: ")


def compile_quickly(
  monkeypatch, cache, version="c++ 12.2.0\n"
) -> list[list[str]]:
  """Replaces the compiler; returns the commands that it is given."""

  def run(command, **_):
    if command[-1] != "--version":
      pathlib.Path(command[-1]).write_bytes(b"library")
      built.append(command)
    return subprocess.CompletedProcess(command, 0, stdout=version)

  built: list[list[str]] = []
  monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
  monkeypatch.setattr(cpu_library.subprocess, "run", run)
  return built


def test_a_user_without_a_home_has_a_temporary_cache(monkeypatch):
  def unknown() -> pathlib.Path:
    raise RuntimeError("Could not determine home directory.")

  monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
  monkeypatch.setattr(pathlib.Path, "home", unknown)
  folder = files.cache_folder()
  assert folder.is_dir() and files.cache_folder() == folder


PROGRAM = """
import jax, pathlib, sys
from fer_jax.training.runtime import compilation_cache as cache
hits = []
jax.monitoring.register_event_listener(
  lambda event, **_: hits.append(event.endswith("/cache_hits"))
)
folder = cache.use_cache(sys.argv[1])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
print(float(jax.jit(lambda x: x * 3 + 1)(2.0)), sum(hits))
"""


def compiled_program(folder: pathlib.Path) -> str:
  """Runs a program in a process; returns its result and the cache's hits."""
  done = subprocess.run(
    [sys.executable, "-W", "error", "-c", PROGRAM, str(folder)],
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.strip()


def test_a_damaged_compiled_program_is_replaced(tmp_path):
  assert compiled_program(tmp_path) == "7.0 0"
  (entry,) = tmp_path.glob("*-cache")
  (checksum,) = tmp_path.glob("*-sha256")
  entry.write_bytes(entry.read_bytes()[:20])
  assert compiled_program(tmp_path) == "7.0 0"
  assert entry.stat().st_size > 20 and checksum.exists()
  assert compiled_program(tmp_path) == "7.0 1"


@pytest.fixture
def cache(tmp_path) -> CheckedCache:
  inner, _ = compilation_cache.get_file_cache(str(tmp_path)) or (None, None)
  assert inner is not None
  if isinstance(inner, CheckedCache):
    return inner
  return CheckedCache(inner, tmp_path)


VALUE = compilation_cache.compress_executable(b"a program" * 100)


@pytest.mark.parametrize("position", [0, 1, 10, len(VALUE) // 2, -1])
def test_a_flipped_bit_in_a_compiled_program_is_noticed(
  cache, tmp_path, position
):
  cache.put("key", VALUE)
  (entry,) = tmp_path.glob("*-cache")
  data = bytearray(entry.read_bytes())
  data[position] ^= 4
  entry.write_bytes(data)
  assert cache.get("key") is None and not entry.exists()
  cache.put("key", VALUE)
  assert cache.get("key") == VALUE


@pytest.mark.parametrize("size", [0, 1, len(VALUE) // 2, len(VALUE) - 1])
def test_what_a_killed_process_wrote_without_a_checksum_is_removed(
  cache, tmp_path, size
):
  (tmp_path / "key-cache").write_bytes(VALUE[:size])
  assert cache.get("key") is None and not [*tmp_path.iterdir()]


def test_compiled_programs_without_checksums_are_kept(cache, tmp_path):
  cache.put("key", VALUE)
  (tmp_path / "key-sha256").unlink()
  assert cache.get("key") == VALUE
  assert (tmp_path / "key-sha256").exists()
