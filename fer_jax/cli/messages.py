"""Error messages of the library, with fields and arguments shown as flags."""

import re

from absl import flags

from fer_jax.cli.config_overrides import FLAG

# A name that is no part of a flag, a path or another name, before "=" or,
# if it is dotted, before anything that ends it.
_NAME = re.compile(
  r"(?<![\w./=\-])(?:([a-z_]\w*(?:\.[a-z_]\w*)*)=(?!=)"
  r"|([a-z_]\w*\.[a-z_]\w*)(?![\w.(/]))"
)
_CHANGE = re.compile(
  r"(?<![\w./=\-])([a-z_]\w*(?:\.[a-z_]\w*)*)(?=: [^;]* -> )"
)
_UNKNOWN = re.compile(r"unknown ([a-z_]\w*(?:\.[a-z_]\w*)*)(?= ')")


def with_flags(message: str, values: flags.FlagValues) -> str:
  """Writes `name=value`, or a field's name, as the flag that sets it.

  Args:
    message: names config fields as `dotted.field=value`, arguments as
      `name=value`, changes of either as `name: old -> new`.
    values: the command's flags.
  """

  def replace(match: re.Match[str]) -> str:
    if match[1]:
      return f"{_flag(match[1], values)}="
    return _flag(match[2], values) if _is_field(match[2]) else match[2]

  def replace_unknown(match: re.Match[str]) -> str:
    return f"unknown {_flag(match[1], values)}"

  def replace_change(match: re.Match[str]) -> str:
    return _flag(match[1], values)

  message = _CHANGE.sub(replace_change, message)
  return _UNKNOWN.sub(replace_unknown, _NAME.sub(replace, message))


def _flag(name: str, values: flags.FlagValues) -> str:
  """Returns the flag that sets an argument or a field, or the name itself."""
  section, _, option = name.partition(".")
  is_option = section in ("model", "dataset") and bool(option)
  if name in values:
    return f"--{name}"
  if FLAG in values and (is_option or _is_field(name)):
    return f"--config.{name}"
  if section == "dataset" and option in values:
    return f"--{option}"
  if name == "dataset.name" and section in values:
    return f"--{section}"
  if section == "dataset" and option and "option" in values:
    return f"--option={option}"
  return name


def _is_field(name: str) -> bool:
  from ml_collections import ConfigDict  # Only errors need it.

  from fer_jax.configs import default

  section, _, option = name.partition(".")
  config = default.get_config()
  if section not in config or not isinstance(config[section], ConfigDict):
    return section in config and not option
  return option in config[section]
