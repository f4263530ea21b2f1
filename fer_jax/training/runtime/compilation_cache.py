"""The persistent cache of compiled programs."""

import os
import pathlib
import tempfile
import warnings

import jax

from fer_jax.files import cache_folder
from fer_jax.object_stores.urls import to_path
from fer_jax.training.runtime import checked_cache


def use_cache(directory: str) -> str | None:
  """Keeps compiled programs between processes, with checksums.

  XLA's own caches inside it (`jax_persistent_cache_enable_xla_caches`) are off:
  on a GPU they write a file for every autotuned fusion. JAX's environment
  variable for them takes precedence.

  Args:
    directory: the folder, or its URL where JAX takes one (`gs://...`); "" is
      JAX_COMPILATION_CACHE_DIR if that is set, and else `fer_jax/compiled` in
      the user's cache folder (XDG_CACHE_HOME or ~/.cache); "off" keeps nothing.

  Returns:
    The folder or URL; None if nothing is kept, which a warning says if the
    folder cannot be written.
  """
  if directory == "off":
    jax.config.update("jax_enable_compilation_cache", False)
    return None
  directory = directory or os.environ.get("JAX_COMPILATION_CACHE_DIR", "")
  if not directory:
    path = str(cache_folder() / "compiled")
  elif "://" in directory:
    path = directory
  else:
    path = str(to_path(directory))
  if "://" not in path and (reason := _why_not_writable(pathlib.Path(path))):
    warnings.warn(
      f"compiled programs cannot be kept in {path} ({reason}), and each process"
      " compiles them again: set XDG_CACHE_HOME to a folder that can be"
      " written, or compilation_cache to one or to off",
      FutureWarning,
      stacklevel=2,
    )
    jax.config.update("jax_enable_compilation_cache", False)
    return None
  checked_cache.install()
  jax.config.update("jax_enable_compilation_cache", True)
  jax.config.update("jax_compilation_cache_dir", path)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
  if _XLA_CACHES.upper() not in os.environ:
    jax.config.update(_XLA_CACHES, "none")
  return path


def _why_not_writable(folder: pathlib.Path) -> str:
  """Returns why a file cannot be written to a folder, "" if it can."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      return ""
  except OSError as e:
    return e.strerror or str(e)


_XLA_CACHES = "jax_persistent_cache_enable_xla_caches"
