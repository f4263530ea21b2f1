"""The figures of the papers, drawn of our runs."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int
from matplotlib.figure import Figure

from fer_jax.evaluation import plots
from fer_jax.plot_theme import theme_of, to_png
from fer_jax.studies import (
  paper_overview,
  paper_results,
  paper_scores,
  study_plots,
)
from fer_jax.studies.paper_results import Result
from fer_jax.studies.papers import PAPERS, Curves, Row


def draw(results: Sequence[Result]) -> dict[str, bytes]:
  """Returns all pictures of rows that have results: PNG files by name."""
  results, pictures = paper_results.shown(results), {}
  if overview := paper_overview.lines(results):
    figure = paper_overview.draw(overview)
    pictures[paper_overview.NAME] = to_png(figure)
  for name, paper in PAPERS.items():
    mine = [result for result in results if result["paper"] == name]
    for curves in paper.curves:
      lines = {
        row: [result["curves"] for result in mine if result["row"] == row]
        for row in curves.rows
      }
      lines = {row: runs for row, runs in lines.items() if runs}
      if lines:
        figure = study_plots.curves(lines, curves.quantity)
        pictures[curves_name(name, curves)] = to_png(figure)
    for row in paper.confusions:
      found = [result for result in mine if result["row"] == row]
      if found:
        matrices = {"ours": paper_scores.our_confusion(found)}
        if paper.row(row).matrix:
          printed = paper_scores.printed_confusion(paper.row(row))
          matrices = {"paper": printed} | matrices
        classes = sorted(found[0]["class_names"])
        figure = _confusions(matrices, classes, row)
        file = confusion_name(name, paper.row(row))
        pictures[file] = to_png(figure)
  return pictures


def curves_name(paper: str, curves: Curves) -> str:
  """Returns the name of a picture of curves, without its suffix."""
  return f"papers_{paper}_{curves.name}"


def confusion_name(paper: str, row: Row) -> str:
  """Returns the name of a picture of a confusion matrix, without suffix."""
  return f"papers_{paper}_{row.slug}"


def _confusions(
  matrices: Mapping[str, Int[np.ndarray, "k k"]],
  class_names: Sequence[str],
  title: str,
) -> Figure:
  """Draws confusion matrices side by side, in percent of the true class."""
  theme = theme_of(dark=False)
  figure = theme.figure(5.6 * len(matrices), 5.4)
  panels = figure.subplots(1, len(matrices), squeeze=False)[0]
  for axes, (name, counts) in zip(panels, matrices.items(), strict=True):
    plots.draw_confusion(axes, counts, class_names, theme)
    axes.set_title(
      f"{name}: percent of the true class", fontsize=9, color=theme.muted, pad=5
    )
  theme.title(figure, title)
  return figure
