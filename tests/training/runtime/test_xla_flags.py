"""XLA's flags are added to the user's, which have precedence."""

import os
import subprocess
import sys

import pytest

from fer_jax import config
from fer_jax.errors import UserError
from fer_jax.training.runtime import xla_flags

GRAPHS = "--xla_gpu_enable_command_buffer"
DETERMINISTIC = "--xla_gpu_deterministic_ops"


@pytest.mark.parametrize(
  ("before", "after"),
  [
    ("", "--xla_a=1"),
    (" ", "--xla_a=1"),
    ("--xla_b=1", "--xla_b=1 --xla_a=1"),
    ("--xla_a=2 --xla_b=1", "--xla_a=2 --xla_b=1"),
    ("--xla_a", "--xla_a"),
    # Other flags may contain the name.
    ("--xla_ab=1", "--xla_ab=1 --xla_a=1"),
    ("--xla_dump_to=/xla_a", "--xla_dump_to=/xla_a --xla_a=1"),
  ],
)
def test_a_flag_is_added_once(monkeypatch, before, after):
  monkeypatch.setenv("XLA_FLAGS", before)
  xla_flags.set_default("xla_a", "1")
  assert os.environ["XLA_FLAGS"] == after


def test_a_file_of_flags_is_left_alone(monkeypatch, caplog):
  monkeypatch.setenv("XLA_FLAGS", "/etc/xla_flags")
  xla_flags.set_default("xla_a", "1")
  assert os.environ["XLA_FLAGS"] == "/etc/xla_flags"
  assert "--xla_a=1 is used only if the file has it" in caplog.text


def test_an_unknown_choice_lists_the_choices():
  with pytest.raises(UserError, match=", ".join(sorted(config.CUDA_GRAPHS))):
    xla_flags.configure_cuda_graphs("on")


@pytest.mark.parametrize(
  ("graphs", "deterministic", "flags"),
  [
    ("auto", False, ""),
    ("off", True, f"{GRAPHS}= {DETERMINISTIC}=true"),
    ("convolutions", False, f"{GRAPHS}=+CONVOLUTION"),
  ],
)
def test_a_start_sets_flags_that_xla_accepts(graphs, deterministic, flags):
  code = (
    "import os; from fer_jax.training.runtime import startup;"
    f"startup.start('off', {graphs!r}, {deterministic});"
    "import jax; print(jax.jit(lambda x: x + 1)(1), os.environ['XLA_FLAGS'])"
  )
  done = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    env=os.environ | {"XLA_FLAGS": ""},
  )
  assert (done.stdout.strip(), done.returncode) == (
    f"2 {flags}".strip(),
    0,
  ), done.stderr
