"""The flags --config, --config.FIELD and --workdir."""

import pathlib
from typing import TYPE_CHECKING, Any, NamedTuple

from absl import flags

from fer_jax.cli import config_overrides

if TYPE_CHECKING:  # The commands' --help is to be quick.
  from ml_collections import ConfigDict


class Recipe(NamedTuple):
  """What the flags give.

  Attributes:
    config: the recipe's configuration, with the fields that flags set.
    workdir: where the run goes, as `object_stores.urls.to_path` returns it.
    overrides: the values of the fields that flags set.
  """

  config: "ConfigDict"
  workdir: pathlib.Path
  overrides: dict[str, Any]


def define_flags(
  workdir: str = "",
  help_text: str = "Folder or URL; default runs/RECIPE-DATASET.",
) -> None:
  """Defines --config, --config.FIELD and --workdir.

  Args:
    workdir: the default.
    help_text: describes --workdir.
  """
  flags.DEFINE_string("config", None, "Recipe, by name or file.", required=True)
  config_overrides.define()
  flags.DEFINE_string("workdir", workdir, help_text)


def read_flags() -> Recipe:
  """Returns the configuration and the workdir that the flags give.

  Configures the process for computing, too.

  Raises:
    UserError: there is no such recipe or field.
  """
  from fer_jax import config_fields, recipes
  from fer_jax.object_stores import urls
  from fer_jax.training.runtime import startup

  given = flags.FLAGS
  config = recipes.load_recipe(given.config)
  fields = config_fields.parse_fields(config, config_overrides.texts(given))
  recipes.set_fields(config, fields)
  startup.configure_process(config)
  name = recipes.short_name(given.config)
  workdir = given.workdir or default_workdir(name, config)
  return Recipe(config, urls.to_path(workdir), fields)


def default_workdir(recipe: str, config: "ConfigDict") -> str:
  """Returns where a run goes if no workdir is given.

  An overfit check has a folder of its own, so that it is not in the way of the
  recipe's run.
  """
  check = f"-overfit{config.overfit}" if config.overfit else ""
  return f"runs/{recipe.replace(':', '-')}-{config.dataset.name}{check}"
