"""pyproject.toml asks for what is imported, and the lock files hold that."""

import ast
import importlib.metadata
import pathlib
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = pathlib.Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def requirements(*extras: str) -> list[Requirement]:
  """Returns the dependencies of the package with some extras."""
  found = [Requirement(text) for text in PROJECT["dependencies"]]
  for extra in extras:
    for requirement in map(Requirement, EXTRAS[extra]):
      if requirement.name == "fer_jax":
        found += requirements(*requirement.extras)
      else:
        found.append(requirement)
  return found


def locked(name: str) -> dict[str, Version]:
  lines = (ROOT / "requirements" / name).read_text().splitlines()
  pins = [Requirement(line) for line in lines if not line.startswith("#")]
  return {
    canonicalize_name(pin.name): Version(str(pin.specifier).lstrip("="))
    for pin in pins
  }


@pytest.mark.parametrize(
  ("name", "extras"), [("ci.txt", ("test", "docs")), ("lowest.txt", ("test",))]
)
def test_every_dependency_is_locked(name, extras):
  pins = locked(name)
  for requirement in requirements(*extras):
    version = pins.get(canonicalize_name(requirement.name))
    assert version and version in requirement.specifier, (
      f"{requirement} is not in requirements/{name}: run `bash .ci/lock`"
    )


def test_the_lowest_versions_are_the_bounds_of_pyproject():
  lowest, newest = locked("lowest.txt"), locked("ci.txt")
  for requirement in requirements():
    name = canonicalize_name(requirement.name)
    (bound,) = (each for each in requirement.specifier if each.operator == ">=")
    assert lowest[name].release[:2] == Version(bound.version).release[:2], name
    assert lowest[name] <= newest[name]


def test_every_import_is_declared():
  imported = set()
  for path in (ROOT / "fer_jax").rglob("*.py"):
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        imported |= {alias.name.partition(".")[0] for alias in node.names}
      elif isinstance(node, ast.ImportFrom) and node.module:
        imported.add(node.module.partition(".")[0])
  imported -= {*sys.stdlib_module_names, "fer_jax"}
  packages = importlib.metadata.packages_distributions()
  declared = {canonicalize_name(each.name) for each in requirements(*EXTRAS)}
  declared.add(canonicalize_name("jaxlib"))  # jax pins it.
  undeclared = {
    name
    for name in imported
    if not declared & set(map(canonicalize_name, packages.get(name, [name])))
  }
  assert not undeclared


def test_lock_files_name_no_place():
  for path in (ROOT / "requirements").iterdir():
    text = path.read_text()
    assert "://" not in text and "--" not in text, path
