"""Flags that had another name before, accepted for one release."""

from collections.abc import Sequence

from fer_jax import renamed_fields

_CONFIG = "config."
# Flags of datasets: like the fields of the same names.
_DATASET = {
  "prepared_dir": "dataset.prepared_dir",
  "data_dir": "dataset.data_dir",
}


def rename(arguments: Sequence[str]) -> list[str]:
  """Returns a command's arguments with the present names of flags.

  Warns once, naming every old flag and its new name.

  >>> rename(["--config.batch_size=64", "photo.png"])
  ['--config.batch_size=64', 'photo.png']
  """
  fields = {field for a in arguments if (field := _field(a)[0])}
  renamed: dict[str, str] = {}
  new = []
  before = ""  # the old field whose value is the next argument
  for argument in arguments:
    if before and not argument.startswith("-"):
      argument = renamed_fields.new_value(before, argument)
    before = ""
    field, prefix = _field(argument)
    name = renamed_fields.new_name(field, fields)
    if name == field:
      new.append(argument)
      continue
    old_flag, equals, value = argument.partition("=")
    if prefix != _CONFIG:
      name = name.removeprefix("dataset.")
    new_flag = f"--{prefix if prefix == _CONFIG else ''}{name}"
    renamed[old_flag] = new_flag
    value = renamed_fields.new_value(field, value)
    before = "" if equals else field
    new.append(f"{new_flag}{equals}{value}")
  if renamed:
    renamed_fields.warn(renamed, "the command line")
  return new


def _field(argument: str) -> tuple[str, str]:
  """Returns the field that a flag sets, or "", and the flag's prefix."""
  flag = argument.partition("=")[0]
  if not flag.startswith("-"):
    return "", ""
  flag = flag.lstrip("-")
  if flag.startswith(_CONFIG):
    return flag.removeprefix(_CONFIG), _CONFIG
  return _DATASET.get(flag, ""), ""
