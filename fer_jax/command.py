"""What the commands share: flags of a recipe, and quiet libraries."""

import logging as python_logging
import pathlib

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from fer_jax import errors
from fer_jax.training import compilation


def define_flags() -> None:
  """Defines --config and --workdir."""
  config_flags.DEFINE_config_file(
    "config", None, "The recipe, a file of configs/.", lock_config=True
  )
  flags.DEFINE_string(
    "workdir", "", "Where the run goes; runs/RECIPE-DATASET if not given."
  )
  flags.mark_flag_as_required("config")


def read_flags() -> tuple[ConfigDict, pathlib.Path]:
  """Returns the configuration and the workdir that the flags give.

  Libraries are quietened, and the cache of compiled steps is opened.

  Raises:
    UserError: there is no such recipe.
  """
  name = config_flags.get_config_filename(flags.FLAGS["config"])
  path, _, argument = name.partition(":")
  recipe = pathlib.Path(path)
  if not recipe.is_file():
    raise errors.UserError(
      f"there is no recipe --config={name}: give a file such as"
      " configs/resnet50.py"
    )
  config = flags.FLAGS.config
  run = "-".join(filter(None, (recipe.stem, argument, config.dataset.name)))
  quieten_libraries()
  compilation.use_cache(config.compilation_cache)
  return config, pathlib.Path(flags.FLAGS.workdir or f"runs/{run}")


def quieten_libraries() -> None:
  """Silences what libraries log, short of warnings."""
  logging.set_verbosity(logging.WARNING)
  logging.get_absl_handler().addFilter(_is_ours)


def _is_ours(record: python_logging.LogRecord) -> bool:
  """Leaves out what orbax says of how its saving goes; errors it raises."""
  return "orbax" not in record.pathname
