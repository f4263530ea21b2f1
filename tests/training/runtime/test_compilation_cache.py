"""Where compiled programs are kept."""

import pathlib

import jax
import pytest

from fer_jax.training.runtime import compilation_cache


@pytest.mark.parametrize(
  ("given", "variable", "kept"),
  [
    ("given", "jax", "given"),
    ("", "jax", "jax"),
    ("", "", "cache/fer_jax/compiled"),
    ("off", "jax", None),
  ],
)
def test_where_compiled_programs_are_kept(monkeypatch, given, variable, kept):
  settings: dict[str, object] = {}
  monkeypatch.setattr(jax.config, "update", settings.__setitem__)
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", variable)
  monkeypatch.setenv("XDG_CACHE_HOME", "cache")
  path = compilation_cache.use_cache(given)
  assert path == (kept and pathlib.Path(kept))
  assert settings["jax_enable_compilation_cache"] == bool(kept)
  assert settings.get("jax_compilation_cache_dir") == kept
