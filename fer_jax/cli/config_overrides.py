"""The flags --config.FIELD=VALUE, which set any field of a recipe."""

from collections.abc import Sequence

from absl import flags

FLAG = "config_field"  # holds "FIELD=VALUE" of every --config.FIELD=VALUE
_PREFIXES = {"--config.": "", "-config.": "", "--noconfig.": "false"}


def define(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flag that holds what --config.FIELD=VALUE set."""
  flags.DEFINE_multi_string(
    FLAG,
    [],
    "Sets a field; --helpfull lists all.",
    flag_values=values,
  )


def take_overrides(arguments: Sequence[str]) -> list[str]:
  """Rewrites --config.FIELD=VALUE as values of one flag.

  The value may follow as an argument of its own. A flag without a value is
  true, and --noconfig.FIELD is false.

  Raises:
    flags.Error: --noconfig.FIELD has a value.

  >>> take_overrides(["--config.seed=3", "--config.augment.flip", "--x=1"])
  ['--config_field=seed=3', '--config_field=augment.flip=true', '--x=1']
  """
  taken = []
  pending = list(arguments)
  while pending:
    argument = pending.pop(0)
    prefix = next((p for p in _PREFIXES if argument.startswith(p)), None)
    if prefix is None:
      taken.append(argument)
      continue
    field, equals, value = argument.removeprefix(prefix).partition("=")
    if equals and _PREFIXES[prefix]:
      raise flags.Error(
        f"{argument} must have no value: --noconfig.{field} sets the field to"
        " false"
      )
    if not equals:
      value = _PREFIXES[prefix]
      if not value:
        follows = pending and not pending[0].startswith("--")
        value = pending.pop(0) if follows else "true"
    taken.append(f"--{FLAG}={field}={value}")
  return taken


def texts(values: flags.FlagValues) -> dict[str, str]:
  """Returns the text of every field that is set; the last one counts."""
  pairs = (text.partition("=") for text in values[FLAG].value or ())
  return {field: value for field, _, value in pairs}
