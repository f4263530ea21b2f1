"""What every test runs under: four fake CPU devices, no rank promotion."""

import os
import tempfile

# Before jax is imported: data parallelism is tested on devices of its own.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax
import pytest

from fer_jax.training.runtime import cpu

jax.config.update("jax_numpy_rank_promotion", "raise")

# Many tests, and commands that tests start, compile the same programs; each
# needs to be compiled only once.
_compiled = tempfile.TemporaryDirectory(prefix="fer_jax_tests_")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _compiled.name
jax.config.update("jax_compilation_cache_dir", _compiled.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.fixture(scope="session", autouse=True)
def _memory_as_it_is() -> None:
  """Does not configure malloc: JAX's threads may have started here before.

  Commands that tests start as processes configure it.
  """
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(cpu, "_c_library", lambda: None)
    cpu.configure_malloc()  # Its result is cached.
