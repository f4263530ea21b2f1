"""The persistent cache of compiled programs."""

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
    ("", "gs://bucket/cache", "gs://bucket/cache"),
  ],
)
def test_where_compiled_programs_are_kept(
  monkeypatch, tmp_path, given, variable, kept
):
  monkeypatch.chdir(tmp_path)
  settings: dict[str, object] = {}
  monkeypatch.setattr(jax.config, "update", settings.__setitem__)
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", variable)
  monkeypatch.setenv("XDG_CACHE_HOME", "cache")
  path = compilation_cache.use_cache(given)
  assert path == kept
  assert settings["jax_enable_compilation_cache"] == bool(kept)
  assert settings.get("jax_compilation_cache_dir") == kept


@pytest.mark.parametrize(
  ("variable", "expected"), [(None, "none"), ("all", None)]
)
def test_xla_keeps_no_caches_unless_asked(
  monkeypatch, tmp_path, variable, expected
):
  monkeypatch.chdir(tmp_path)
  name = "jax_persistent_cache_enable_xla_caches"
  settings: dict[str, object] = {}
  monkeypatch.setattr(jax.config, "update", settings.__setitem__)
  monkeypatch.delenv(name.upper(), raising=False)
  if variable:
    monkeypatch.setenv(name.upper(), variable)
  compilation_cache.use_cache("given")
  assert settings.get(name) == expected


def test_a_folder_that_cannot_be_written_turns_the_cache_off(
  monkeypatch, tmp_path
):
  settings: dict[str, object] = {}
  monkeypatch.setattr(jax.config, "update", settings.__setitem__)
  (tmp_path / "file").touch()
  with pytest.warns(
    FutureWarning, match="file/cache .Not a directory."
  ) as told:
    assert compilation_cache.use_cache(str(tmp_path / "file" / "cache")) is None
  assert settings == {"jax_enable_compilation_cache": False}
  assert len(told) == 1 and "\n" not in str(told[0].message)
