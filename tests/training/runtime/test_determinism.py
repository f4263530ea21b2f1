"""Deterministic kernels are requested once, and the user's flags prevail."""

import os
import subprocess
import sys

import pytest

from fer_jax.training.runtime import determinism

FLAG = "--xla_gpu_deterministic_ops"


@pytest.mark.parametrize(
  ("deterministic", "before", "after"),
  [
    (False, "--xla_a=1", "--xla_a=1"),
    (True, "", f"{FLAG}=true"),
    (True, "--xla_a=1", f"--xla_a=1 {FLAG}=true"),
    (True, f"{FLAG}=false", f"{FLAG}=false"),
  ],
)
def test_xla_flags(monkeypatch, deterministic, before, after):
  monkeypatch.setenv("XLA_FLAGS", before)
  determinism.configure(deterministic)
  assert os.environ["XLA_FLAGS"] == after


def test_xla_accepts_the_flag():
  code = (
    "from fer_jax.training.runtime import startup;"
    "startup.start('off', deterministic=True);"
    "import jax; print(jax.jit(lambda x: x + 1)(1))"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True
  )
  assert (done.stdout.strip(), done.returncode) == ("2", 0), done.stderr
