"""A trained workdir for tests, made once a session."""

import functools
import pathlib
import tempfile

import pytest
import tiny_run

from fer_jax.training import train_loop


@functools.cache
def folder() -> pathlib.Path:
  return pathlib.Path(tempfile.mkdtemp(prefix="fer_jax_trained_"))


@functools.cache
def workdir() -> pathlib.Path:
  """A network of one block, trained on bars for two epochs."""
  with pytest.MonkeyPatch.context() as patch:
    tiny_run.register(patch)
    train_loop.train_and_evaluate(
      tiny_run.config(folder() / "prepared"), folder() / "run"
    )
  return folder() / "run"
