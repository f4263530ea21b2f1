"""One picture of all papers: the accuracies that they print, and ours."""

import dataclasses
from collections.abc import Sequence

from matplotlib.figure import Figure

from fer_jax.plot_theme import percent, theme_of
from fer_jax.studies import paper_results, paper_scores
from fer_jax.studies.paper_results import Result
from fer_jax.studies.papers import PAPERS, Row

NAME = "papers_accuracies"
_LINE, _MARGIN = 0.23, 0.9  # of the height, in inches


@dataclasses.dataclass(frozen=True)
class Line:
  """A row of a paper in the picture.

  Attributes:
    paper: who wrote it.
    name: of the row.
    printed: the paper's accuracy, 0 to 1; None if it prints none.
    ours: mean over seeds; None if it is not trained.
    finished: whether ours is trained to its end.
  """

  paper: str
  name: str
  printed: float | None
  ours: float | None
  finished: bool


def lines(results: Sequence[Result]) -> list[Line]:
  """Returns the rows of papers that print accuracies, in their order.

  Rows without an accuracy of the paper are there if they are trained, but for
  those that others start from: they have another dataset than the paper's
  table. If none of all rows is trained, there are none.

  Args:
    results: of all papers.
  """
  results, found = paper_results.shown(results), []
  for key, paper in PAPERS.items():
    if not any(_printed(row) for row in paper.rows):
      continue
    sources = {row.init_from for row in paper.rows}
    for row in paper.rows:
      if row.name in sources:
        continue
      runs = [
        result
        for result in results
        if (result["paper"], result["row"]) == (key, row.name)
      ]
      if runs or _printed(row):
        ours = paper_scores.our_scores(runs)["accuracy"] if runs else None
        finished = all(map(paper_results.is_complete, runs))
        author = paper.title.partition(":")[0]
        found.append(Line(author, row.name, _printed(row), ours, finished))
  return found if any(line.ours is not None for line in found) else []


def draw(shown: Sequence[Line]) -> Figure:
  """Draws a line of dots for each row, under the names of the papers."""
  theme = theme_of(dark=False)
  papers = list(dict.fromkeys(line.paper for line in shown))
  counts = [sum(line.paper == name for line in shown) for name in papers]
  height = _LINE * (len(shown) + 2 * len(papers)) + _MARGIN
  figure = theme.figure(7.6, height)
  panels = figure.subplots(
    len(papers), sharex=True, squeeze=False, height_ratios=counts
  )[:, 0]
  for axes, name in zip(panels, papers, strict=True):
    mine = [line for line in shown if line.paper == name]
    for y, line in enumerate(mine):
      if line.printed is not None and line.ours is not None:
        ends = [line.printed, line.ours]
        axes.plot(ends, [y, y], color=theme.gray, linewidth=1, zorder=1)
      if line.printed is not None:
        axes.scatter(line.printed, y, 30, theme.vermilion, marker="D")
      if line.ours is not None:
        color = theme.blue if line.finished else theme.page
        axes.scatter(line.ours, y, 36, color, edgecolors=theme.blue)
    axes.set_yticks(range(len(mine)), [line.name for line in mine])
    axes.set_ylim(len(mine) - 0.5, -0.5)
    axes.set_title(name, loc="left", fontsize=9.5, color=theme.ink)
    axes.xaxis.set_major_formatter(percent)
    theme.style(axes, xgrid=True, ygrid=True)
  panels[-1].set_xlabel("Accuracy")
  for label, marker, face, edge in (
    ("the paper", "D", theme.vermilion, theme.vermilion),
    ("ours", "o", theme.blue, theme.blue),
    ("ours, not trained to the end", "o", theme.page, theme.blue),
  ):
    panels[0].scatter(
      [], [], 33, face, marker=marker, edgecolors=edge, label=label
    )
  theme.legend(panels[0])
  return figure


def _printed(row: Row) -> float | None:
  """Returns the accuracy of a row that its paper prints, 0 to 1, if it does."""
  scores = paper_scores.printed_scores(row)
  value = scores.get("accuracy", scores.get("stated"))
  if isinstance(value, str):
    return float(value.removesuffix("%")) / 100
  return value
