"""A trained workdir for tests, made once per session."""

import functools
import pathlib
import tempfile

import pytest
import tiny_run

from fer_jax.training import train_loop

_folder = tempfile.TemporaryDirectory(prefix="fer_jax_trained_")


def folder() -> pathlib.Path:
  return pathlib.Path(_folder.name)


@functools.cache
def workdir() -> pathlib.Path:
  """A network of one block, trained on bars for two epochs."""
  with pytest.MonkeyPatch.context() as patch:
    tiny_run.register(patch)
    train_loop.train_and_evaluate(
      tiny_run.config(folder() / "prepared"), folder() / "run"
    )
  return folder() / "run"
