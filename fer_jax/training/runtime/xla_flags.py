"""Flags of XLA, which it reads from the environment when JAX starts."""

import os


def set_default(name: str, value: str) -> None:
  """Sets a flag, unless the user's XLA_FLAGS has it; before JAX is used.

  Args:
    name: without dashes.
    value: as the flag takes it.
  """
  flags = os.environ.get("XLA_FLAGS", "")
  if name not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} --{name}={value}".strip()
