"""The report of a study: tables, plots and one page."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from fer_jax import fonts
from fer_jax.evaluation import html_page
from fer_jax.output_folder import OutputFolder
from fer_jax.studies import comparison_tables, study_plots
from fer_jax.studies.comparison import Recipe

KIND = "study"  # of report


def write(
  recipes: Sequence[Recipe], split: str, folder: pathlib.Path
) -> pathlib.Path:
  """Writes the report, replacing an older one.

  Args:
    recipes: with their results.
    split: the split they are compared on.
    folder: is created if it does not exist.

  Returns:
    The path of the page.

  Raises:
    UserError: the folder cannot be written, or holds files that the package did
      not make.
  """
  output = html_page.report_folder(folder, KIND)
  drawn = [recipe.name for recipe in recipes]
  for recipe in recipes:
    drawn += recipe.outcomes[0].class_names
  with fonts.matplotlib_fonts(dict.fromkeys(drawn)):
    return _write(recipes, split, output)


def notes(recipes: Sequence[Recipe]) -> str:
  """Explains the numbers of the first table."""
  several = len(recipes[0].outcomes) > 1
  told = (
    "Intervals: Student's t over seeds."
    if several
    else "Intervals: bootstrap over images; one seed does not show how much"
    " another training run would differ."
  )
  told += (
    " Leak-free: without images that are in the training split too."
    " Differences are paired by image; p (images) tests the choice of images,"
    " p (seeds) the seeds, neither corrected for the number of comparisons."
    " images/s and minutes depend on this machine and its load."
  )
  others = [r for r in recipes if r.versus is None and not r.is_baseline]
  if others:
    names = ", ".join(recipe.name for recipe in others)
    told += (
      f" Not compared with the baseline: {names} (no class names, seeds or"
      " images, byte for byte, in common)."
    )
  return told


def text(recipes: Sequence[Recipe], split: str) -> str:
  """Returns all tables and the notes as Markdown.

  Args:
    recipes: with their results.
    split: the split they are compared on.
  """
  found = comparison_tables.tables(recipes, split)
  shown = "\n".join(table.to_markdown() for table in found)
  return f"{shown}\n{notes(recipes)}\n"


def _write(
  recipes: Sequence[Recipe], split: str, output: OutputFolder
) -> pathlib.Path:
  folder = output.folder
  found = comparison_tables.tables(recipes, split)
  texts = {f"{table.name}.csv": table.to_csv() for table in found}
  texts["tables.md"] = text(recipes, split)
  names = html_page.write_pictures(_drawings(recipes, split), output)
  outcomes = [one for recipe in recipes for one in recipe.outcomes]
  texts[html_page.NAME] = html_page.render(
    "study.html.jinja",
    title=f"A study of {', '.join(recipe.name for recipe in recipes)}",
    recipes=recipes,
    outcomes=[{"links": _links(one, folder)} for one in outcomes],
    num_runs=sum(len(one.workdirs) for one in outcomes),
    num_seeds=max(len(recipe.outcomes) for recipe in recipes),
    num_rows=len(outcomes[0].example_ids),
    split=split,
    tables=found,
    notes=notes(recipes),
    pictures=html_page.pictures(folder, names),
    matrices=list(_matrices(recipes)),
  )
  for name, content in texts.items():
    with output.write(name) as temporary:
      temporary.write_text(content, encoding="utf-8")
  return folder / html_page.NAME


def _drawings(recipes: Sequence[Recipe], split: str) -> dict[str, Any]:
  """Returns drawing functions by name, given whether the page is dark."""
  runs = {
    recipe.name: [
      study_plots.curves_of(epochs)
      for outcome in recipe.outcomes
      for epochs in outcome.epochs
    ]
    for recipe in recipes
  }
  return {
    "loss_curves": lambda dark: study_plots.curves(runs, "loss", dark=dark),
    "accuracy_curves": lambda dark: study_plots.curves(
      runs, "accuracy", dark=dark
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
  """Returns links to the reports of the runs, relative to the page."""
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
