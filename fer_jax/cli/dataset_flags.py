"""The flags that choose a data set, for commands without a recipe."""

import math
import re
from collections.abc import Iterable
from typing import Any

from absl import flags

from fer_jax.data import views
from fer_jax.data.datasets import registry
from fer_jax.data.splits import Dataset
from fer_jax.errors import UserError, choose


def define(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines --dataset, --manual_dir, --data_dir and --option.

  Not as the file is imported: other commands may have flags of these names.
  A command's --help lists them once it has called `adopt_module_key_flags`.

  Args:
    values: where the flags go.
  """
  flags.DEFINE_string(
    "dataset",
    "fer2013",
    "A data set, as fer_jax.data lists them.",
    flag_values=values,
  )
  flags.DEFINE_string(
    "manual_dir",
    "",
    "Where the release's files lie, if not in the usual folder.",
    flag_values=values,
  )
  flags.DEFINE_string(
    "data_dir",
    "",
    "Where prepared data go, if not to the usual folder.",
    flag_values=values,
  )
  flags.DEFINE_multi_string(
    "option",
    [],
    "NAME=VALUE, an option of the data set or of the view of it, such as "
    "classes=happy,sad; may be repeated.",
    flag_values=values,
  )


def load(values: flags.FlagValues, name: str = "", **options: Any) -> Dataset:
  """Opens the data set that the flags choose.

  Args:
    values: where the flags are.
    name: another data set, in the same folders, without the flags' options.
    **options: of that other data set.

  Raises:
    UserError: as `registry.load`, with the flags of `define` in its message;
      or an option is none.
  """
  if not name:
    name = values.dataset
    options = parse_options(name, values.option)
  try:
    return registry.load(
      name,
      manual_dir=values.manual_dir,
      data_dir=values.data_dir,
      **options,
    )
  except UserError as e:
    raise UserError(_in_flags(str(e), name)) from e


def parse_options(name: str, texts: Iterable[str]) -> dict[str, Any]:
  """Reads options of a data set, each as the kind that its default is.

  Args:
    name: the data set's.
    texts: "NAME=VALUE" each.

  Raises:
    UserError: the data set or an option is unknown, an option stands twice or
      its value is of another kind.
  """
  defaults = {**registry.default_options(name), **views.OPTIONS}
  options: dict[str, Any] = {}
  for text in texts:
    option, equals, value = text.partition("=")
    if not equals:
      raise UserError(
        f"--option={text}: give NAME=VALUE; names are"
        f" {', '.join(sorted(defaults))}"
      )
    choose(f"option of data set {name}", option, defaults)
    if option in options:
      raise UserError(f"--option={option}=... is given twice: leave one")
    options[option] = _value(text, value, defaults[option])
  return options


def parse_value(text: str) -> bool | int | float | str:
  """Reads a number or a truth value where the text is one.

  >>> [parse_value(text) for text in ("3", "0.5", "True", "happy,sad")]
  [3, 0.5, True, 'happy,sad']
  """
  if text.lower() in ("true", "false"):
    return text.lower() == "true"
  for kind in (int, float):
    try:
      value = kind(text)
    except ValueError:
      continue
    if math.isfinite(value):
      return value
  return text


def _value(flag: str, text: str, default: Any) -> Any:
  if isinstance(default, str):
    return text
  value = parse_value(text)
  kinds: tuple[type, ...] = (type(default),)
  if kinds == (float,):
    kinds = (float, int)
  if default is not None and type(value) not in kinds:
    raise UserError(
      f"--option={flag} must be of the kind of its default, {default!r}"
    )
  return value


def _in_flags(message: str, name: str) -> str:
  """Tells of a recipe's fields by the flags that stand for them here."""
  for flag in ("manual_dir", "data_dir"):
    message = message.replace(f"dataset.{flag}", f"--{flag}")
  for option in (*registry.default_options(name), *views.OPTIONS):
    message = re.sub(
      rf"--config\.dataset\.{option}\b", f"--option={option}", message
    )
  return message
