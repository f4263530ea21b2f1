"""What a study trains: every recipe with every seed, and every fold."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.cli import recipe_flags
from fer_jax.data.datasets import registry
from fer_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """One training of a study.

  Attributes:
    recipe: its name in tables, "resnet50" or "sutton_alexnet:A".
    seed: of the parameters, the order and the augmentation.
    fold: of cross-validation; None without.
    config: what it is trained by.
    workdir: where.
  """

  recipe: str
  seed: int
  fold: int | None
  config: ConfigDict
  workdir: pathlib.Path

  def __str__(self) -> str:
    fold = "" if self.fold is None else f", fold {self.fold}"
    return f"{self.recipe}, seed {self.seed}{fold}"


def plan(
  recipes: Sequence[str],
  seeds: Sequence[int],
  overrides: Mapping[str, Any],
  folder: pathlib.Path,
  all_folds: bool = False,
) -> list[Run]:
  """Lists the runs of a study, recipe by recipe; all are checked.

  Args:
    recipes: files of configs/, with what may follow a colon.
    seeds: one run each.
    overrides: fields of every configuration, by dotted name.
    folder: the runs go to `runs` there.
    all_folds: a run for every fold of a data set that has folds.

  Raises:
    UserError: a recipe is not there or named twice, or a field is wrong.
  """
  for kind, given in (("configs", recipes), ("seeds", seeds)):
    if not given or len(set(given)) < len(given):
      shown = ",".join(map(str, given))
      raise UserError(f"--{kind}={shown} must name one or more, each once")
  runs = []
  for recipe in recipes:
    name = _name(recipe)
    for seed in seeds:
      config = load_recipe(recipe)
      with config.unlocked():
        config.update_from_flattened_dict({**overrides, "seed": seed})
      configs.check(config)
      for fold in _folds(config) if all_folds else [None]:
        of_fold = config.copy_and_resolve_references()
        if fold is not None:
          with of_fold.unlocked():
            of_fold.dataset.fold = fold
        part = "" if fold is None else f"-fold{fold}"
        workdir = f"{name.replace(':', '-')}-seed{seed}{part}"
        runs.append(
          Run(name, seed, fold, of_fold.lock(), folder / "runs" / workdir)
        )
  names = [run.workdir for run in runs]
  if len(set(names)) < len(names):
    raise UserError(
      f"--configs={','.join(recipes)} has two recipes of one name: rename a"
      " file, since names tell runs apart"
    )
  return runs


def load_recipe(recipe: str) -> ConfigDict:
  """Loads a file of configs/, "FILE" or "FILE:CHOICE".

  Raises:
    UserError: there is no such file, or it takes no such choice.
  """
  config = recipe_flags.call_file(
    "configs", recipe, "get_config", "configs/resnet50.py"
  )
  return configs.upgrade(config, f"configs={recipe}").lock()


def _name(recipe: str) -> str:
  path, colon, choice = recipe.partition(":")
  return pathlib.Path(path).stem + colon + choice


def _folds(config: ConfigDict) -> list[int]:
  options = registry.default_options(config.dataset.name)
  if "fold" not in options:
    raise UserError(
      f"--all_folds: data set {config.dataset.name} has no folds; ckplus has"
    )
  return list(range(config.dataset.num_folds or options["num_folds"]))
