"""Settings of all tests (four fake CPU devices), and shared fixtures."""

import os
import pathlib
import signal
import tempfile
from collections.abc import Iterator

# Before jax is imported: data parallelism is tested on devices of its own.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import jax
import pytest

from fer_jax.training.runtime import checked_cache, cpu

jax.config.update("jax_numpy_rank_promotion", "raise")

# The processes that run the tests, and commands that they start, have one cache
# instead of the user's: many compile the same programs.
if "FER_JAX_TESTS_CACHE" not in os.environ:
  _cache = tempfile.TemporaryDirectory(prefix="fer_jax_tests_")
  os.environ["FER_JAX_TESTS_CACHE"] = _cache.name
os.environ["XDG_CACHE_HOME"] = os.environ["FER_JAX_TESTS_CACHE"]
_compiled = os.environ["JAX_COMPILATION_CACHE_DIR"] = (
  f"{os.environ['XDG_CACHE_HOME']}/compiled"
)
checked_cache.install()
jax.config.update("jax_compilation_cache_dir", _compiled)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="session", autouse=True)
def _unconfigured_malloc() -> None:
  """Does not configure malloc: JAX's threads may have started here before.

  Commands that tests start as processes configure it.
  """
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(cpu, "_c_library", lambda: None)
    cpu.configure_malloc()  # Its result is cached.


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """A folder where the small datasets of tests are prepared, once."""
  return tmp_path_factory.mktemp("prepared")


@pytest.fixture
def tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
  """Registers the model "tiny" and the dataset "bars" of `tiny_run`."""
  import tiny_run  # Only here: it imports most of the package.

  tiny_run.register(monkeypatch)


@pytest.fixture
def trained_workdir(tiny_model: None) -> pathlib.Path:
  """The workdir of a short run of "tiny", trained once per session."""
  import trained_run

  return trained_run.workdir()


@pytest.fixture
def hangups_end_processes() -> Iterator[None]:
  """Undoes `nohup`, under which the tests may run, for what a test starts."""
  before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
  yield
  signal.signal(signal.SIGHUP, before)
