"""Flags of XLA, which it reads from the environment when JAX starts."""

import os

from absl import logging


def set_default(name: str, value: str) -> None:
  """Sets a flag, unless the user's XLA_FLAGS has it; before JAX is used.

  Where XLA_FLAGS names a file of flags, it is left alone, with a warning.

  Args:
    name: without dashes.
    value: as the flag takes it.
  """
  flags = os.environ.get("XLA_FLAGS", "").strip()
  if flags and not flags.startswith("-"):
    logging.warning(
      "XLA_FLAGS=%s names a file: --%s=%s is used only if the file has it",
      flags,
      name,
      value,
    )
    return
  names = {flag.lstrip("-").partition("=")[0] for flag in flags.split()}
  if name not in names:
    os.environ["XLA_FLAGS"] = f"{flags} --{name}={value}".strip()
