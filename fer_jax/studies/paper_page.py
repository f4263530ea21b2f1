"""The page of the papers' tables, the papers' figures beside ours."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fer_jax.errors import UserError
from fer_jax.files import atomic_write
from fer_jax.studies import (
  paper_overview,
  paper_plots,
  paper_results,
  paper_scores,
  paper_setup,
)
from fer_jax.studies.paper_results import Result, cannot_write
from fer_jax.studies.paper_scores import METRICS, PER_CLASS, Scores
from fer_jax.studies.papers import PAPERS, Paper, Table
from fer_jax.tables import format_markdown

_TITLE = "# The five papers"
_OPENING = f"""{_TITLE}

The tables of the five papers with our figures beside theirs, and the epochs we
trained (`10 of 50`: the run is not finished; `-`: not trained yet). Ours are of
the validation split (PublicTest); the test split was not read. "Without leaks"
leaves out the images that have a byte-identical copy in the training split. A
run has one seed if its table does not say otherwise, and the settings of the
recipe if "Training" names no others. Minutes are those of training, also on
machines that did other work at the same time.

    fer-jax reproduce --paper=pan --budget=8h

trains the rows of a paper that are not finished, the cheapest first, and writes
such a page; the same command resumes. The last section is of our own recipes
(`--paper=recipes`)."""
_OVERVIEW = f"""![All accuracies](images/{paper_overview.NAME}.png)

The accuracies that the papers print, and ours: Jiang's are of FER+ with ten
classes, the others' of FER2013. Each section says what differs between a
paper's images and ours."""


def check_output(page: Path) -> None:
  """Checks that a page is new, or one that `write` made.

  Args:
    page: the Markdown file.

  Raises:
    UserError: it is another file, which must stay as it is, or a folder.
  """
  try:
    content = page.read_bytes() if page.exists() else b""
  except OSError as e:
    raise UserError(f"page={page}: {e.strerror or e}: give another") from e
  if content and not content.startswith(_TITLE.encode()):
    raise UserError(
      f"page={page} exists and was not made by `reproduce`: give another"
    )


def write(
  results: Sequence[Result], page: Path, notes: Mapping[str, str] | None = None
) -> None:
  """Writes the page, and its pictures to `images` beside it.

  Args:
    results: of all papers.
    page: the Markdown file.
    notes: on the results of papers, as `paper_notes.read` returns them.

  Raises:
    UserError: a file cannot be written, or as `check_output` does.
  """
  check_output(page)
  images = page.parent / "images"
  with cannot_write():
    for name, picture in paper_plots.draw(results).items():
      with atomic_write(images / f"{name}.png", parents=True) as temporary:
        temporary.write_bytes(picture)
    with atomic_write(page, parents=True) as temporary:
      temporary.write_text(render(results, notes), encoding="utf-8")


def render(
  results: Sequence[Result], notes: Mapping[str, str] | None = None
) -> str:
  """Returns the page as Markdown; the arguments are those of `write`."""
  parts = [_OPENING, _OVERVIEW if paper_overview.lines(results) else ""]
  for name, paper in PAPERS.items():
    mine = [result for result in results if result["paper"] == name]
    parts += _section(name, paper, mine)
    parts += [(notes or {}).get(name, ""), paper.notes]
  return "\n\n".join(filter(None, parts)) + "\n"


def _section(
  name: str, paper: Paper, results: Sequence[Result]
) -> Iterator[str]:
  yield f"## {paper.title}"
  yield paper.reference
  yield paper.protocol
  runs = {
    row.name: paper_results.by_settings(found)
    for row in paper.rows
    if (found := [r for r in results if r["row"] == row.name])
  }
  by_row = {name: groups[0] for name, groups in runs.items()}
  for table in paper.tables:
    yield f"### {table.title}"
    for part in table.metrics:
      if part in PER_CLASS:
        yield _class_table(paper, table, part, by_row)
    if not PER_CLASS.keys() & set(table.metrics):
      yield _table(paper, table, by_row)
  for curves in paper.curves:
    if by_row.keys() & set(curves.rows):
      file = paper_plots.curves_name(name, curves)
      yield f"![{curves.title}, {curves.quantity}](images/{file}.png)"
  for row in paper.confusions:
    if row in by_row:
      file = paper_plots.confusion_name(name, paper.row(row))
      yield f"![Confusion matrix, {row}](images/{file}.png)"
  yield "### Settings of the runs"
  yield paper_setup.table(paper.rows)
  if by_row:
    yield "### Training"
    yield _runs([group for groups in runs.values() for group in groups])


def _table(
  paper: Paper, table: Table, by_row: Mapping[str, Sequence[Result]]
) -> str:
  printed = {
    name: paper_scores.printed_scores(paper.row(name)) for name in table.rows
  }
  ours = {
    name: paper_scores.our_scores(by_row[name])
    for name in table.rows
    if name in by_row
  }
  header = ["run"]
  columns: list[tuple[str, Mapping[str, Scores]]] = []
  for metric in table.metrics:
    title = METRICS[metric].title
    if any(metric in scores for scores in printed.values()):
      header.append(f"{title}: paper")
      columns.append((metric, printed))
      title = "ours"
    if metric != "stated":
      header.append(title)
      columns.append((metric, ours))
  rows = [
    [
      name,
      *(_cell(metric, scores.get(name, {})) for metric, scores in columns),
      _epochs(by_row.get(name, [])),
    ]
    for name in table.rows
  ]
  for name, accuracy in table.baselines.items():
    empty = ["-"] * (len(columns) - 1)
    rows.append([name, METRICS["accuracy"].format(accuracy), *empty, "-"])
  return "\n".join(format_markdown([*header, "epochs"], rows))


def _cell(metric: str, scores: Scores) -> str:
  return METRICS[metric].format(scores.get(metric))


def _class_table(
  paper: Paper,
  table: Table,
  metric: str,
  by_row: Mapping[str, Sequence[Result]],
) -> str:
  """Returns a table of a column for each class, "paper / ours" in percent."""
  names: list[str] = []
  rows = []
  for name in table.rows:
    if name not in by_row:
      continue
    names = sorted(by_row[name][0]["class_names"])
    ours = paper_scores.our_scores(by_row[name])[metric]
    row, printed = paper.row(name), len(names) * ["-"]
    if row.matrix:
      scores = paper_scores.printed_scores(row)[metric]
      printed = [f"{100 * value:.0f}" for value in scores]
    cells = (
      f"{of_paper} / {100 * value:.0f}"
      for of_paper, value in zip(printed, ours, strict=True)
    )
    rows.append([name, *cells, _epochs(by_row[name])])
  if not rows:
    return ""
  head = format_markdown(["run", *names, "epochs"], rows)
  return "\n".join(["Paper / ours, in percent.", "", *head])


def _runs(groups: Sequence[Sequence[Result]]) -> str:
  """Returns the table of training: a line for each row and its settings."""
  header = (
    "run",
    "accuracy",
    "without leaks",
    "images",
    "epochs",
    "best",
    "seeds",
    "minutes",
    "machine",
  )
  rows = []
  for results in groups:

    def mean(field: str, results: Sequence[Result] = results) -> float:
      return float(np.mean([result[field] for result in results]))

    overrides = paper_results.overrides_of(results[0])
    changes = [f"`{field}={value}`" for field, value in overrides.items()]
    rows.append(
      [
        ", ".join([results[0]["row"], *changes]),
        METRICS["accuracy"].format(
          paper_scores.our_scores(results)["accuracy"]
        ),
        METRICS["accuracy"].format(mean("accuracy_without_leaks")),
        f"{np.sum(results[0]['confusion']):,}",
        _epochs(results),
        f"{mean('best_epoch'):.0f}",
        str(len(results)),
        f"{mean('minutes'):.1f}",
        ", ".join(sorted({_machine(result) for result in results})),
      ]
    )
  return "\n".join(format_markdown(header, rows))


def _machine(result: Result) -> str:
  """Returns the machine, and the dtype of the compute if it is not float32."""
  dtype = result.get("dtype", "float32")  # Older files lack it.
  machine: str = result["machine"]
  return machine if dtype == "float32" else f"{machine}, {dtype}"


def _epochs(results: Sequence[Result]) -> str:
  if not results:
    return "-"
  epochs = f"{np.mean([result['epochs'] for result in results]):.0f}"
  if all(map(paper_results.is_complete, results)):
    return epochs
  return f"{epochs} of {max(map(paper_results.planned_epochs, results))}"
