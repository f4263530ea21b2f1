"""Fields of a configuration by dotted name: their types, and setting them.

The sections `model` and `dataset` take the options that the named model or
dataset declares; every other field is one of `configs/default.py`.
"""

import difflib
import functools
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from fer_jax import config_values, renamed_fields
from fer_jax.configs import default
from fer_jax.data import views
from fer_jax.data.datasets import registry as datasets
from fer_jax.errors import UserError, did_you_mean
from fer_jax.models import registry as models

OPEN_SECTIONS = ("model", "dataset")
# Fields of other sections that may be None, with their types; None is replaced
# by the dataset's own.
OPTIONAL_FIELDS: dict[str, type] = {
  "input.image_size": int,
  "input.channels": int,
}


def flatten(config: Any) -> dict[str, Any]:
  """Returns every field by its dotted name.

  >>> flatten({"model": {"name": "resnet18"}, "seed": 0})
  {'model.name': 'resnet18', 'seed': 0}
  """
  return dict(_walk(config))


def _walk(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
  for key, value in node.items():
    if isinstance(value, dict | ConfigDict):
      yield from _walk(value, f"{prefix}{key}.")
    else:
      yield prefix + key, value


@functools.cache
def default_types() -> dict[str, type]:
  """Returns the types of the fields of `configs/default.py`, by name."""
  fields = flatten(default.get_config()).items()
  return {f: OPTIONAL_FIELDS.get(f) or type(v) for f, v in fields}


def option_types(section: str, name: str) -> dict[str, type]:
  """Returns the types of the options of a model or a dataset.

  Args:
    section: "model" or "dataset".
    name: of the model or the dataset.

  Raises:
    UserError: the name is unknown.
  """
  if section == "model":
    declared = models.options_of(name)
    return {
      o: config_values.kind_of(d.type, d.default) for o, d in declared.items()
    }
  defaults = datasets.default_options(name)
  return {option: type(value) for option, value in defaults.items()}


def option_default(config: ConfigDict, field: str) -> Any:
  """Returns the default of an option of the model or the dataset, as in JSON.

  Args:
    config: its `model.name` and `dataset.name` decide which options there are.
    field: of the sections `model` or `dataset`; None is returned for others.
  """
  section, _, option = field.partition(".")
  if section == "model":
    declared = models.options_of(config.model.name)
    value = declared[option].default if option in declared else None
  elif section == "dataset":
    value = datasets.default_options(config.dataset.name).get(option)
  else:
    return None
  return list(value) if isinstance(value, tuple) else value


def field_types(config: ConfigDict) -> dict[str, type]:
  """Returns the types of all fields that a configuration may have.

  Args:
    config: its `model.name` and `dataset.name` decide which options there are.

  Raises:
    UserError: the model or the dataset is unknown.
  """
  found = dict(default_types())
  for section in OPEN_SECTIONS:
    options = option_types(section, config[section].name)
    found |= {f"{section}.{option}": kind for option, kind in options.items()}
  return found


def set_fields(config: ConfigDict, fields: Mapping[str, Any]) -> ConfigDict:
  """Sets fields by dotted name, in place; their order does not matter.

  Args:
    config: a configuration, locked or not.
    fields: values of their fields' types. None unsets an option of the model
      or the dataset. Old names are accepted with a warning.

  Returns:
    `config`.

  Raises:
    UserError: there is no such field, or a value has another type.

  >>> set_fields(default.get_config(), {"seed": 3}).seed
  3
  """
  fields = renamed_fields.upgrade(fields, "the configuration")
  names = [f"{section}.name" for section in OPEN_SECTIONS]
  rest = [field for field in fields if field not in names]
  with config.unlocked():
    for field in names:  # They decide which other fields there are.
      if field in fields:
        set_field(config, field, config_values.typed(field, fields[field], str))
    # Options of datasets take seconds to import.
    known = default_types() if rest else {}
    if any(field not in known for field in rest):
      known = field_types(config)
    for field in rest:
      value = fields[field]
      if not (value is None and _is_option(field, config)):
        value = config_values.typed(
          field, value, _type_of(field, config, known)
        )
      set_field(config, field, value)
  return config


def parse_fields(
  config: ConfigDict, texts: Mapping[str, Any]
) -> dict[str, Any]:
  """Reads values that are given as text, as the types of their fields.

  Args:
    config: the configuration they are for; not changed.
    texts: by dotted name; values that are no strings are kept.

  Raises:
    UserError: there is no such field, or a text does not fit its type.

  >>> parse_fields(default.get_config(), {"input.mean": "0.5,0.4,0.3"})
  {'input.mean': (0.5, 0.4, 0.3)}
  """
  known = default_types()
  if any(field not in known for field in texts):
    names = {f"{s}.name": texts.get(f"{s}.name", "") for s in OPEN_SECTIONS}
    named = config.copy_and_resolve_references()
    set_fields(named, {field: name for field, name in names.items() if name})
    config, known = named, field_types(named)
  parsed = {}
  for field, text in texts.items():
    if not isinstance(text, str):
      parsed[field] = text
    elif text == "None" and _is_option(field, config):
      parsed[field] = None
    else:
      kind = _type_of(field, config, known)
      unset = kind is not str and text.lower() == "none"  # else a choice
      unset = unset and _is_option(field, config)
      parsed[field] = None if unset else config_values.parse(field, text, kind)
  return parsed


def check_fields(config: ConfigDict) -> None:
  """Checks that there are such fields and options, and their types.

  Raises:
    UserError: for the first that is unknown, or has another type.
  """
  known = field_types(config)
  for field, value in flatten(config).items():
    is_option = field.startswith(tuple(f"{s}." for s in OPEN_SECTIONS))
    is_option = is_option and field not in default_types()
    if value is None and (is_option or field in OPTIONAL_FIELDS):
      continue  # The default.
    try:
      kind = _type_of(field, config, known)
    except UserError as e:
      if not is_option:
        raise
      reason = str(e).partition(" (did you mean")[0]
      raise UserError(f"{reason}; {field}=None removes it") from e
    config_values.typed(field, value, kind)


def section_of(config: ConfigDict, field: str) -> tuple[ConfigDict, str]:
  """Returns the section that holds a field, and the field's name in it."""
  *sections, name = field.split(".")
  return functools.reduce(operator.getitem, sections, config), name


def set_field(config: ConfigDict, field: str, value: Any) -> None:
  """Sets one field, unchecked; an option that is None is removed."""
  section, name = section_of(config, field)
  if value is not None or field in OPTIONAL_FIELDS:
    section[name] = value
  elif name in section:
    del section[name]


def _is_option(field: str, config: ConfigDict) -> bool:
  """Returns whether a field is an option, or one that is set, of a section."""
  section, _, option = field.partition(".")
  if field in OPTIONAL_FIELDS:
    return True
  if section not in OPEN_SECTIONS or field in default_types():
    return False
  name = config[section].name
  return option in config[section] or option in option_types(section, name)


def _type_of(field: str, config: ConfigDict, known: dict[str, type]) -> type:
  """Returns a field's type.

  Raises:
    UserError: there is no such field.
  """
  if field in known:
    return known[field]
  section, _, option = field.partition(".")
  if inside := [name for name in known if name.startswith(f"{field}.")]:
    name = f"{field}.name" if f"{field}.name" in inside else inside[0]
    raise UserError(f"{field} is a section: set its fields, such as {name}")
  if section not in OPEN_SECTIONS or not option:
    close = _close(field, known)
    hint = ": `fer-jax train --helpfull` lists the fields"
    hint = f" (did you mean {close}?)" if close else hint
    raise UserError(f"unknown field {field}{hint}")
  options = sorted(option_types(section, config[section].name))
  views_of = sorted(views.OPTIONS) if section == "dataset" else []
  raise UserError(
    f"unknown option {field}:"
    f" {section} {config[section].name} takes"
    f" {', '.join([*options, *views_of]) or 'no options'}"
    f"{did_you_mean(option, [*options, *views_of])}"
  )


def _close(field: str, known: Iterable[str]) -> str:
  """Returns the field that was probably meant, or "".

  In a section that exists it is one of its fields, which initials stand for
  too: `optimizer.lr` is `optimizer.learning_rate`.
  """
  section, _, name = field.rpartition(".")
  inside = [other for other in known if other.startswith(f"{section}.")]
  if not inside:
    section, name, inside = "", field, [*known]
  for other in inside:
    words = other.rpartition(".")[2].split("_")
    if name == "".join(word[0] for word in words) and len(words) > 1:
      return other
  names = {other.removeprefix(f"{section}."): other for other in inside}
  return next((names[n] for n in difflib.get_close_matches(name, names, 1)), "")
