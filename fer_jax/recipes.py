"""Recipes, and spaces of sweeps, by name or by file."""

import importlib
import inspect
import os
import pathlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax import config_fields, python_files
from fer_jax import configs as recipe_files
from fer_jax.configs import sweeps as space_files
from fer_jax.errors import UserError, did_you_mean, require
from fer_jax.object_stores import urls


def list_configs() -> list[str]:
  """Returns the names of the recipes, as `get_config` takes them.

  >>> "resnet50" in list_configs()
  True
  """
  names = _names(recipe_files)
  return [name for name in names if name not in ("default", "sweeps")]


def summary(name: str) -> str:
  """Returns the first line of a recipe's description.

  >>> summary("resnet50")
  "ResNet-50 on FER2013, as in Pan's study of depth."
  """
  module = _module("config", name, recipe_files, "resnet50")
  return (module.__doc__ or "").partition("\n")[0]


def get_config(
  name: str | os.PathLike[str],
  overrides: Mapping[str, Any] | None = None,
  /,
  **fields: Any,
) -> ConfigDict:
  """Returns a recipe's configuration.

  `print(config)` shows its fields, `fer-jax train --helpfull` describes them.
  They can be set on what is returned, too: `config.num_epochs = 5`. With
  another dataset than the recipe's, `set_fields` says what is left out.

  Args:
    name: a recipe ("resnet50"), a recipe and its choice ("jiang_ri:ckplus"),
      or a Python file with a function `get_config`.
    overrides: values of fields by dotted name, or nested dictionaries.
    **fields: the same as keywords; sections are dictionaries.

  Raises:
    UserError: there is no such recipe or field, or a value has another type.

  >>> config = get_config("resnet50", num_epochs=5, model={"stem": "small"})
  >>> config.num_epochs, config.model.name, config.model.stem
  (5, 'resnet50', 'small')
  >>> get_config("resnet50", {"dataset.name": "synthetic_faces"}).dataset.name
  'synthetic_faces'
  """
  config = load_recipe(text_of("config", name, "resnet50"))
  given = {**(overrides or {}), **fields}
  set_fields(config, config_fields.flatten(given))
  return configs.lock(config)


def set_fields(config: ConfigDict, fields: Mapping[str, Any]) -> None:
  """Sets fields of a recipe, in place.

  With another dataset, unsets and prints what the recipe sets for its own: the
  options that the other one does not take, the number of classes, and the
  teacher, which knows these classes.

  Args:
    config: the recipe's configuration.
    fields: values by dotted name, which are never unset.

  Raises:
    UserError: there is no such field, or a value has another type.
  """
  name = config.dataset.name
  unset = _fields_of_dataset(config, fields.get("dataset.name", name))
  unset = {field: unset[field] for field in unset if field not in fields}
  empty = {f: "" if f == "loss.teacher" else None for f in unset}
  config_fields.set_fields(config, {**empty, **fields})
  if unset:
    shown = ", ".join(f"{field}={value}" for field, value in unset.items())
    print(
      f"dataset.name={config.dataset.name}: without what the recipe sets for"
      f" {name} ({shown})",
      flush=True,
    )


def _fields_of_dataset(config: ConfigDict, other: str) -> dict[str, Any]:
  """Returns what is set for a configuration's dataset but not for another."""
  set_here = config_fields.flatten({"dataset": config.dataset})
  known = config_fields.default_types()
  own = {f: value for f, value in set_here.items() if f not in known}
  own |= {"loss.teacher": config.loss.teacher} if config.loss.teacher else {}
  if other == config.dataset.name or not own:
    return {}  # Options of datasets take seconds to import.
  options = {*config_fields.option_types("dataset", other)} - {"num_classes"}
  taken = {f"dataset.{option}" for option in options}
  return {f: value for f, value in own.items() if f not in taken}


def load_recipe(recipe: str) -> ConfigDict:
  """Returns a recipe's configuration as it is.

  Args:
    recipe: as `get_config`'s `name`.

  Raises:
    UserError: there is no such recipe, or it takes no such choice.
  """
  config = _call("config", recipe, recipe_files, "get_config", "resnet50")
  if not isinstance(config, ConfigDict):
    raise UserError(
      f"config={recipe}: get_config() must return a ConfigDict, not"
      f" {config!r:.60}"
    )
  return configs.lock(configs.upgrade(config, recipe))


def load_space(
  space: str | os.PathLike[str] | Mapping[str, Any],
) -> Mapping[str, Any]:
  """Returns a search space: fields and their values.

  Args:
    space: a name ("lewis"), a name and its choice ("lewis:grid"), a Python
      file with a function `get_space`, or a space itself.

  Raises:
    UserError: there is no such space, or it takes no such choice.
  """
  if isinstance(space, Mapping):
    require(bool(space), "space", space, "have at least one field")
    return space
  space = text_of("space", space, "lewis:grid")
  fields = _call("space", space, space_files, "get_space", "lewis:grid")
  if not isinstance(fields, Mapping) or not fields:
    raise UserError(
      f"space={space}: get_space() must return a mapping of fields to values,"
      f" not {fields!r:.60}"
    )
  return fields


def text_of(kind: str, given: str | os.PathLike[str], example: str) -> str:
  """Returns the name of a recipe or a space, or its file's, as text.

  Args:
    kind: "config" or "space", for messages.
    given: by a caller.
    example: a name that could be given.

  Raises:
    UserError: it is neither text nor a path.
  """
  text = os.fspath(given) if isinstance(given, str | os.PathLike) else given
  if not isinstance(text, str):
    raise UserError(
      f"{kind} must be a name, such as {example}, or a Python file, not"
      f" {type(given).__name__}"
    )
  return text


def short_name(recipe: str) -> str:
  """Returns how a recipe is called in tables, without folder and suffix.

  >>> short_name("configs/jiang_ri.py:ckplus"), short_name("resnet50")
  ('jiang_ri:ckplus', 'resnet50')
  """
  path, colon, choice = recipe.partition(":")
  return pathlib.PurePath(path).stem + colon + choice


def _names(package: ModuleType) -> list[str]:
  return sorted(found.name for found in pkgutil.iter_modules(package.__path__))


def _call(
  kind: str, given: str, package: ModuleType, function: str, example: str
) -> Any:
  """Returns what a function of a named file, or of a file by path, returns.

  Args:
    kind: "config" or "space", for messages.
    given: "NAME", "FILE.py", and ":CHOICE" after it, which the function takes.
    package: holds the files that have names.
    function: the function's name.
    example: a name that could be given.

  Raises:
    UserError: there is no such file, or it takes no such choice.
  """
  path, _, choice = given.partition(":")
  module = _module(kind, path, package, example)
  try:
    called = getattr(module, function)
    if choice and not inspect.signature(called).parameters:
      raise UserError(f"{kind}={given}: {path} takes no choice after a colon")
    return called(choice) if choice else called()
  except UserError:
    raise
  except Exception as e:  # Whatever is wrong with the file.
    raise UserError(f"{kind}={given} failed: {type(e).__name__}: {e}") from e


def _module(
  kind: str, path: str, package: ModuleType, example: str
) -> ModuleType:
  """Imports a file, or a module of `package` by name."""
  file = urls.require_local(path, kind, is_input=True)
  names = _names(package)
  is_name = "/" not in path and not path.endswith(".py")
  # configs/NAME.py is in the package where there is no folder configs/.
  bundled = file.suffix == ".py" and file.parent.name in ("configs", "sweeps")
  name = path if is_name else file.stem
  if (is_name or (bundled and not file.is_file())) and name in names:
    return importlib.import_module(f"{package.__name__}.{name}")
  if file.suffix != ".py" or not file.is_file():
    raise UserError(
      f"unknown {kind}={path}{did_you_mean(file.stem, names)}: give a name,"
      f" such as {example} (`fer-jax list` shows all), or a Python file"
    )
  return python_files.execute(file, f"{kind}={path}")
