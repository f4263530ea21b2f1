"""Who may import whom: nothing imports upward, and nothing in a circle."""

import ast
import functools
import pathlib

import fer_jax

ROOT = pathlib.Path(fer_jax.__file__).parent
# From the lowest layer up; a layer imports itself and what is below it.
LAYERS = [
  {
    "checksums",
    "config_values",
    "console",
    "errors",
    "files",
    "fonts",
    "object_stores",
    "output_folder",
    "output_manifest",
    "output_names",
    "plot_theme",
    "python_files",
    "renamed_fields",
    "tables",
    "text_output",
    "configs",
    "__init__",
  },
  {"ops"},
  {"models", "data", "faces"},
  {"config", "config_fields", "recipes"},
  {"evaluation", "inference", "training", "pretrained"},
  {"studies", "sweeps", "serving"},
  {"api"},
  {"cli"},
]
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}
COMMANDS = len(LAYERS)  # every other module of the package itself
# configs/sweeps describes spaces in the terms of fer_jax.sweeps.
EXCEPTIONS = {("fer_jax.configs.sweeps", "fer_jax.sweeps")}


@functools.cache
def modules() -> dict[str, ast.Module]:
  """Returns every module's source, by name."""
  return {
    ".".join(["fer_jax", *path.relative_to(ROOT).with_suffix("").parts]): (
      ast.parse(path.read_text())
    )
    for path in ROOT.rglob("*.py")
  }


def imports(tree: ast.AST) -> set[str]:
  """Returns the modules of the package that a module imports.

  Imports in functions count, those for type checkers and of entry points
  (`if ...:`) do not.
  """
  found: set[str] = set()
  for node in ast.iter_child_nodes(tree):
    if isinstance(node, ast.If):
      continue
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom) and node.module:
      found |= {f"{node.module}.{alias.name}" for alias in node.names}
    else:
      found |= imports(node)
  return {name for name in found if name.startswith("fer_jax.")}


def level(module: str) -> int:
  """Returns the layer of a module, from 0."""
  return LEVELS.get(module.split(".")[1], COMMANDS)


def test_nothing_imports_upward():
  upward = [
    f"{module} imports {imported}"
    for module, tree in modules().items()
    for imported in imports(tree)
    if level(imported) > level(module)
    and not imported.startswith("fer_jax.__")
    and not any(
      module.startswith(a) and imported.startswith(b) for a, b in EXCEPTIONS
    )
  ]
  assert not upward


def test_no_one_imports_a_command():
  commands = {
    f"fer_jax.{path.stem}"
    for path in ROOT.glob("*.py")
    if path.stem not in LEVELS
  }
  assert "fer_jax.train" in commands
  importers = [
    f"{module} imports {imported}"
    for module, tree in modules().items()
    for imported in imports(tree)
    if ".".join(imported.split(".")[:2]) in commands
  ]
  assert not importers


def test_models_and_data_do_not_know_each_other():
  for module, tree in modules().items():
    if module.startswith(("fer_jax.models", "fer_jax.ops")):
      others = ("fer_jax.data", "fer_jax.faces")
    elif module.startswith("fer_jax.data"):
      others = ("fer_jax.models", "fer_jax.ops")
    else:
      continue
    assert not [i for i in imports(tree) if i.startswith(others)], module


def test_studies_sweeps_and_serving_do_not_know_each_other():
  names = {"studies", "sweeps", "serving"}
  assert names in LAYERS
  importers = [
    f"{module} imports {imported}"
    for module, tree in modules().items()
    for imported in imports(tree)
    if {module.split(".")[1], imported.split(".")[1]} <= names
    and module.split(".")[1] != imported.split(".")[1]
  ]
  assert not importers


def test_no_module_imports_itself_in_a_circle():
  names = modules()
  graph = {
    module: {
      imported if imported in names else imported.rpartition(".")[0]
      for imported in imports(tree)
    }
    - {module}
    for module, tree in names.items()
  }
  done: set[str] = set()

  def visit(module: str, path: list[str]) -> None:
    assert module not in path, " -> ".join([*path, module])
    if module in done:
      return
    for imported in graph.get(module, ()):
      visit(imported, [*path, module])
    done.add(module)

  for module in graph:
    visit(module, [])
