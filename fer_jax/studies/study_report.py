"""What a study leaves: tables, pictures and a page of all of it."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from fer_jax.evaluation import html_page, plots
from fer_jax.studies import study_plots, tables
from fer_jax.studies.comparison import Recipe


def write(
  recipes: Sequence[Recipe], split: str, folder: pathlib.Path
) -> pathlib.Path:
  """Writes everything anew.

  Args:
    recipes: with their outcomes.
    split: what they are compared on.
    folder: where to; made if it is not there.

  Returns:
    The page.

  Raises:
    UserError: the folder cannot be written.
  """
  with html_page.reporting(folder):
    return _write(recipes, split, folder)


def notes(recipes: Sequence[Recipe]) -> str:
  """Says what the numbers of the first table mean."""
  several = len(recipes[0].outcomes) > 1
  text = (
    "Intervals: Student's t over seeds."
    if several
    else "Intervals: bootstrap over images; one seed says nothing of how much"
    " another training would differ."
  )
  text += (
    " Leak-free: images that do not stand in the training split too."
    " Differences are paired, image by image; p (rows) is of the choice of"
    " images, p (seeds) of the seeds, neither corrected for the number of"
    " comparisons. images/s and minutes are this machine's, with what else ran"
    " on it."
  )
  return text


def _write(
  recipes: Sequence[Recipe], split: str, folder: pathlib.Path
) -> pathlib.Path:
  found = tables.tables(recipes, split)
  for table in found:
    (folder / f"{table.name}.csv").write_text(table.to_csv())
  text = "\n".join(table.to_markdown() for table in found)
  (folder / "tables.md").write_text(f"{text}\n{notes(recipes)}\n")
  paths = plots.write_both(_drawings(recipes, split), folder)
  drawn = {path.stem: html_page.picture(path) for path in paths}
  outcomes = [one for recipe in recipes for one in recipe.outcomes]
  html = html_page.render(
    "study.html.jinja",
    title=f"A study of {', '.join(recipe.name for recipe in recipes)}",
    recipes=recipes,
    outcomes=[{"links": _links(one, folder)} for one in outcomes],
    num_runs=sum(len(one.workdirs) for one in outcomes),
    num_seeds=max(len(recipe.outcomes) for recipe in recipes),
    num_rows=len(outcomes[0].rows),
    split=split,
    tables=found,
    notes=notes(recipes),
    pictures=drawn,
    matrices=list(_matrices(recipes)),
  )
  path = folder / html_page.NAME
  path.write_text(html, encoding="utf-8")
  return path


def _drawings(recipes: Sequence[Recipe], split: str) -> dict[str, Any]:
  """What is drawn: name -> a function of whether the page is dark."""
  return {
    "loss_curves": lambda dark: study_plots.curves(recipes, "loss", dark=dark),
    "accuracy_curves": lambda dark: study_plots.curves(
      recipes, "accuracy", dark=dark
    ),
    "accuracy": lambda dark: study_plots.accuracies(recipes, split, dark=dark),
    "cost": lambda dark: study_plots.cost(recipes, split, dark=dark),
    **_matrices(recipes),
  }


def _matrices(recipes: Sequence[Recipe]) -> dict[str, Any]:
  return {
    f"confusion_{recipe.name.replace(':', '-')}": (
      lambda dark, recipe=recipe: study_plots.confusion(recipe, dark=dark)
    )
    for recipe in recipes
  }


def _links(outcome: Any, folder: pathlib.Path) -> list[dict[str, Any]]:
  """The reports of a recipe's runs, from where the page lies."""
  return [
    {
      "name": workdir.name,
      "link": os.path.relpath(workdir / "report" / html_page.NAME, folder),
      "best_epoch": best_epoch,
    }
    for workdir, best_epoch in zip(
      outcome.workdirs, outcome.best_epochs, strict=True
    )
  ]
