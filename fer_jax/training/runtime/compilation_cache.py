"""The persistent cache of compiled programs."""

import os
import pathlib

import jax

from fer_jax.files import cache_folder
from fer_jax.training.runtime import checked_cache


def use_cache(directory: str) -> pathlib.Path | None:
  """Keeps compiled programs between processes, with checksums.

  Of XLA's own caches inside it (`jax_persistent_cache_enable_xla_caches`), none
  is used: on GPU they write a file for every autotuned fusion, and whether they
  or the `lax.scan` over steps made the first step come 40 to 80 s later has not
  been measured apart. JAX's setting can still be given by its environment
  variable.

  Args:
    directory: the folder; "" is JAX_COMPILATION_CACHE_DIR if that is set, and
      else `fer_jax/compiled` in the user's cache folder (XDG_CACHE_HOME or
      ~/.cache); "off" keeps nothing.

  Returns:
    The folder, or None.
  """
  if directory == "off":
    jax.config.update("jax_enable_compilation_cache", False)
    return None
  directory = directory or os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
  if directory:
    path = pathlib.Path(directory).expanduser()
  else:
    path = cache_folder() / "compiled"
  checked_cache.install()
  jax.config.update("jax_enable_compilation_cache", True)
  jax.config.update("jax_compilation_cache_dir", str(path))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
  if _XLA_CACHES.upper() not in os.environ:
    jax.config.update(_XLA_CACHES, "none")
  return path


_XLA_CACHES = "jax_persistent_cache_enable_xla_caches"
