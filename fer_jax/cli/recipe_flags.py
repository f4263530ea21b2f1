"""What the commands share: flags of a recipe, and quiet libraries."""

import importlib.util
import logging as python_logging
import pathlib
from typing import Any

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from fer_jax import config as configs
from fer_jax import errors
from fer_jax.training.runtime import compilation_cache, cpu


def define_flags(
  workdir: str = "", note: str = "runs/RECIPE-DATASET if not given"
) -> None:
  """Defines --config and --workdir.

  Args:
    workdir: its default.
    note: what --help says of that.
  """
  config_flags.DEFINE_config_file(
    "config", None, "The recipe, a file of configs/.", lock_config=True
  )
  flags.DEFINE_string("workdir", workdir, f"Where the run goes; {note}.")
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
  config = configs.upgrade(flags.FLAGS.config, f"--config={name}")
  run = "-".join(filter(None, (recipe.stem, argument, config.dataset.name)))
  start(config.compilation_cache)
  return config, pathlib.Path(flags.FLAGS.workdir or f"runs/{run}")


def call_file(flag: str, given: str, function: str, example: str) -> Any:
  """What a function of a Python file returns, which a flag names.

  Args:
    flag: its name.
    given: its value, "FILE" or "FILE:CHOICE"; the function takes the choice.
    function: its name.
    example: a file that could be given.

  Raises:
    UserError: there is no such file, or it takes no such choice.
  """
  path, _, choice = given.partition(":")
  file = pathlib.Path(path)
  kind = "recipe" if function == "get_config" else "space"
  if file.suffix != ".py" or not file.is_file():
    raise errors.UserError(
      f"there is no {kind} --{flag}={given}: give files such as {example}"
    )
  spec = importlib.util.spec_from_file_location(file.stem, file)
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    called = getattr(module, function)
    return called(choice) if choice else called()
  except errors.UserError:
    raise
  except Exception as e:  # Whatever is wrong with the file.
    raise errors.UserError(f"--{flag}={given} is no {kind}: {e}") from e


def start(cache: str = "") -> None:
  """Sets up this process: logging, malloc, and the compilation cache.

  Must be called before JAX starts its threads.

  Args:
    cache: `compilation_cache` of a configuration.
  """
  quieten_libraries()
  cpu.configure_malloc()
  compilation_cache.use_cache(cache)


def quieten_libraries() -> None:
  """Silences what libraries log, short of warnings."""
  logging.set_verbosity(logging.WARNING)
  logging.get_absl_handler().addFilter(_is_ours)


def _is_ours(record: python_logging.LogRecord) -> bool:
  """Leaves out what orbax says of how its saving goes; errors it raises."""
  return "orbax" not in record.pathname
