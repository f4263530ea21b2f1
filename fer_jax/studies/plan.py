"""The runs of a study: every recipe with every seed, and every fold."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax import config_fields
from fer_jax.errors import UserError
from fer_jax.recipes import load_recipe, set_fields, short_name
from fer_jax.training import config_check
from fer_jax.training.cross_validation import num_folds_of


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """One training of a study.

  Attributes:
    recipe: its name in tables, "resnet50" or "sutton_alexnet:A".
    seed: random seed of parameters, batch order and augmentation.
    fold: cross-validation fold; None without.
    config: its configuration.
    workdir: its folder.
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
  """Returns the runs of a study, recipe by recipe, after checking all.

  Args:
    recipes: names of recipes, or files; ":CHOICE" may follow.
    seeds: one run of each recipe for each.
    overrides: fields of every configuration, by dotted name, also as text.
    folder: the study's; runs go to `runs` in it.
    all_folds: one run for every fold, for datasets that have folds.

  Raises:
    UserError: a recipe does not exist or is named twice, or a field is wrong.
  """
  for kind, given in (("configs", recipes), ("seeds", seeds)):
    if not given or len(set(given)) < len(given):
      shown = ",".join(map(str, given))
      raise UserError(f"{kind}={shown} must name one or more, each once")
  runs = []
  for recipe in recipes:
    name = short_name(recipe)
    shared = load_recipe(recipe)
    set_fields(shared, config_fields.parse_fields(shared, overrides))
    for seed in seeds:
      config = shared.copy_and_resolve_references()
      config_fields.set_fields(config, {"seed": seed})
      config_check.check(config)
      for fold in range(num_folds_of(config)) if all_folds else [None]:
        of_fold = config.copy_and_resolve_references()
        if fold is not None:
          with of_fold.unlocked():
            of_fold.dataset.fold = fold
        part = "" if fold is None else f"-fold{fold}"
        workdir = f"{name.replace(':', '-')}-seed{seed}{part}"
        place = folder / "runs" / workdir
        runs.append(Run(name, seed, fold, configs.lock(of_fold), place))
  names = [run.workdir for run in runs]
  if len(set(names)) < len(names):
    raise UserError(
      f"configs={','.join(recipes)} has two recipes of the same name: rename a"
      " file, since runs are named after recipes"
    )
  return runs
