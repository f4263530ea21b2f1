"""CUDA graphs are chosen before JAX starts, and the user's flags prevail."""

import os
import subprocess
import sys

import pytest

from fer_jax import config
from fer_jax.errors import UserError
from fer_jax.training.runtime import cuda_graphs

FLAG = "--xla_gpu_enable_command_buffer"


@pytest.mark.parametrize(
  ("choice", "before", "after"),
  [
    ("auto", None, None),
    ("off", None, f"{FLAG}="),
    ("convolutions", None, f"{FLAG}=+CONVOLUTION"),
    ("convolutions", "--xla_a=1", f"--xla_a=1 {FLAG}=+CONVOLUTION"),
    ("convolutions", f"{FLAG}=FUSION", f"{FLAG}=FUSION"),
    ("off", f"{FLAG}=FUSION", f"{FLAG}=FUSION"),
  ],
)
def test_xla_flags(monkeypatch, choice, before, after):
  # Set first, so that what `configure` sets is undone too.
  monkeypatch.setenv("XLA_FLAGS", before or "")
  if before is None:
    monkeypatch.delenv("XLA_FLAGS")
  cuda_graphs.configure(choice)
  assert os.environ.get("XLA_FLAGS") == after


def test_an_unknown_choice_lists_the_choices():
  with pytest.raises(UserError, match="auto, convolutions, off"):
    cuda_graphs.configure("on")


@pytest.mark.parametrize("choice", config.CUDA_GRAPHS)
def test_xla_accepts_the_flags(choice):
  code = (
    "from fer_jax.training.runtime import startup;"
    f"startup.start('off', {choice!r});"
    "import jax; print(jax.jit(lambda x: x + 1)(1))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True
  )
  assert (done.stdout.strip(), done.returncode) == ("2", 0), done.stderr
