"""Python files of the user's: recipes, search spaces, networks."""

import importlib.util
from pathlib import Path
from types import ModuleType

from fer_jax.errors import UserError


def execute(file: Path, shown: str) -> ModuleType:
  """Returns a Python file as a module.

  Args:
    file: it.
    shown: what messages call it, such as "config=my_recipe.py".

  Raises:
    UserError: the file is missing, or raises an error.
  """
  spec = importlib.util.spec_from_file_location(file.stem, file)
  try:
    if spec is None or spec.loader is None:
      raise ImportError("not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
  except UserError:
    raise
  except Exception as e:  # Whatever is wrong with the file.
    raise UserError(f"{shown}: {type(e).__name__}: {e}") from e
  return module
