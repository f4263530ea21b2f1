"""XLA's flags are added to the user's, which prevail."""

import os

import pytest

from fer_jax.training.runtime import xla_flags


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
