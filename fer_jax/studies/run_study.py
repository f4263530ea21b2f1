"""A whole study: trains recipes with seeds, compares them, writes a report."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from fer_jax import config_fields
from fer_jax.data.datasets import registry
from fer_jax.errors import choose, require
from fer_jax.evaluation import html_page
from fer_jax.object_stores import urls
from fer_jax.recipes import text_of
from fer_jax.studies import (
  comparison,
  plan,
  run_results,
  study_report,
  training,
)

Recipe = str | os.PathLike[str]
_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, repr=False)
class StudyResult:
  """The recipes of a study, compared; printed, they are tables.

  Attributes:
    recipes: means over seeds, intervals and tests, in the order given.
    page: the report, a page of HTML.
    tables: the tables of the report in Markdown.
  """

  recipes: list[comparison.Recipe]
  page: Path
  tables: str

  def __repr__(self) -> str:
    return self.tables


def run_study(
  recipes: Recipe | Sequence[Recipe],
  seeds: Sequence[int] = (0,),
  workdir: str | os.PathLike[str] = "runs/study",
  overrides: Mapping[str, Any] | None = None,
  *,
  split: str = "validation",
  baseline: str = "",
  processes: int = 0,
  all_folds: bool = False,
) -> StudyResult:
  """Trains every recipe with every seed, and compares them.

  Finished runs are not trained again: the same call resumes a study, and
  recipes or seeds can be added later.

  Args:
    recipes: names of recipes, or files; ":CHOICE" may follow. One may be given
      alone.
    seeds: of the runs of each recipe.
    workdir: runs go to `runs` there, the report to `report`.
    overrides: fields of every recipe, as `get_config` takes them.
    split: what is compared: "validation", "test", or both joined by "+".
    baseline: the recipe that others are tested against; "" is the first.
    processes: 0 trains in this process; more, so many runs at once, each in a
      process of its own.
    all_folds: whether to train a run for each fold, of a dataset with folds.

  Raises:
    UserError: a recipe, a field or the split is wrong, a run failed, or runs
      have other data than others.
    Interrupted: SIGINT or SIGTERM was received, or `max_minutes` are over; the
      state is saved.

  Example:
    fields = {"num_epochs": 1, "dataset.name": "synthetic_faces"}
    study = fer_jax.run_study(["resnet18", "pan:resnet34"], [0], "s", fields)
    print(study)
  """
  urls.require_named(workdir)
  folder = urls.require_local(workdir, "workdir")
  if not isinstance(recipes, Iterable) or isinstance(recipes, str | ConfigDict):
    recipes = [recipes]
  names = [text_of("config", recipe, "resnet50") for recipe in recipes]
  must = "be a list of integers, such as [0, 1, 2]"
  require(isinstance(seeds, Iterable), "seeds", seeds, must)
  seeds = [int(s) if isinstance(s, np.integer) else s for s in seeds]
  require(processes >= 0, "processes", processes, "be at least 0")
  fields = config_fields.flatten(overrides or {})
  runs = plan.plan(names, seeds, fields, folder, all_folds)
  deadline = training.first_deadline([run.config for run in runs])
  if baseline:
    choose("baseline", baseline, {run.recipe for run in runs})
  must = "be one split with all_folds: each image is in several otherwise"
  require(not all_folds or "+" not in split, "split", split, must)
  _check_split(runs, split)
  report = html_page.report_folder(folder / "report", study_report.KIND)
  report.check()
  training.train(runs, processes, deadline)
  outcomes = run_results.gather(runs, split)
  compared = comparison.compare(outcomes, baseline)
  page = study_report.write(compared, split, report.folder)
  tables = study_report.text(compared, split)
  return StudyResult(compared, page, tables)


def _check_split(runs: Sequence[plan.Run], split: str) -> None:
  """Checks that the data of runs still to be trained have the splits.

  Raises:
    UserError: a name is unknown or given twice, or a dataset has no such split.
  """
  names = split.split("+")
  for name in names:
    choose("split", name, _SPLITS)
  must = "name each split once"
  require(len(set(names)) == len(names), "split", split, must)
  if "test" not in names:
    return  # Training checks the others.
  checked = []
  for run in runs:
    options = run.config.dataset.to_dict()
    done = training.is_done(run.workdir, run.config)
    if options not in checked and not done:
      checked.append(dict(options))
      registry.load(options.pop("name"), **options).split("test")
