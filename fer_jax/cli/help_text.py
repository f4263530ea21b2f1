"""What --help shows: the command's own flags, one line each."""

import inspect
import sys

from absl import flags

from fer_jax.cli.config_overrides import FLAG

_WIDTH = 80
_VALUES = {
  "bool": "",
  "int": "=N",
  "float": "=X",
  "string": "=TEXT",
  "comma separated list of strings": "=A,B",
  "multi string": "=TEXT",
  "string enum": "=NAME",
}


def render(
  values: flags.FlagValues, doc: str | None = None, full: bool = False
) -> str:
  """Returns the help of a command.

  Args:
    values: all flags of the process.
    doc: describes the command; the main module's docstring if not given.
    full: whether to add the config fields and the libraries' flags.
  """
  if doc is None:
    doc = getattr(sys.modules["__main__"], "__doc__", None)
  own = [name for name in values if _is_own(name, values)]
  rows = [_row(values[name]) for name in own]
  width = max((len(flag) for flag, _ in rows), default=0)
  lines = [(doc or "").strip(), ""]
  for flag, text in rows:
    lines.append(_fit(f"  {flag.ljust(width)}  {text}"))
  if full:
    if FLAG in values:
      lines += ["", "Fields of --config.FIELD=VALUE, and their defaults:", ""]
      lines += _fields()
    lines += ["", "Flags of libraries:", "", values.get_help()]
  else:
    lines.append(f"  {'--helpfull'.ljust(width)}  All flags.")
  return "\n".join(lines).rstrip()


def _is_own(name: str, values: flags.FlagValues) -> bool:
  """Returns whether the command, and no library, defines a flag."""
  module = str(values.find_module_defining_flag(name))
  main = getattr(sys.modules["__main__"], "__file__", "")
  return module.startswith("fer_jax") or module in (sys.argv[0], main)


def _row(flag: flags.Flag) -> tuple[str, str]:
  """Returns how a flag is typed, and what it does."""
  text = str(flag.help or "").partition("\n")[0].removesuffix(";")
  if flag.name == FLAG:
    return "--config.FIELD=VALUE", text
  kind = flag.flag_type()
  value = _VALUES.get(kind, "=VALUE")
  if flag.boolean:
    name = f"--no_{flag.name}" if flag.default else f"--{flag.name}"
    return name, text
  if flag.default not in (None, "", []) and "efault" not in text:
    shown = str(flag.default_as_str).strip("'")
    text = f"{text.removesuffix('.')} ({shown})."
  return f"--{flag.name}{value}", text


def _fit(line: str) -> str:
  return line if len(line) <= _WIDTH else line[: _WIDTH - 3] + "..."


def _fields() -> list[str]:
  """Returns the lines of configs/default.py that set and describe fields."""
  from fer_jax.configs import default

  body = inspect.getsource(default.get_config).splitlines()[3:-1]
  return [
    line.replace("placeholder(int)", "None")
    for line in body
    if not line.endswith("= ConfigDict()")
  ]
