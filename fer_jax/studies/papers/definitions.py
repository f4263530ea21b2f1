"""The form in which a paper's runs, tables and pictures are written down."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
  """One training run of a paper, a row of its tables.

  Attributes:
    name: as the tables call it.
    recipe: a recipe of configs/ and the choice after a colon, if any.
    printed: what the paper prints, in its digits, by names of
      `paper_scores.METRICS`.
    overrides: of fields of the recipe, by dotted name.
    init_from: the row of the same paper whose weights it starts from.
    matrix: the paper's confusion matrix, one line per true class, classes in
      alphabetical order.
  """

  name: str
  recipe: str
  printed: Mapping[str, str] = dataclasses.field(default_factory=dict)
  overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  init_from: str = ""
  matrix: str = ""

  @property
  def slug(self) -> str:
    """The name as part of a file's name.

    >>> Row("AlexNet, run A", "").slug
    'alexnet-run-a'
    """
    kept = (c if c.isalnum() or c == "." else " " for c in self.name.lower())
    return "-".join("".join(kept).split())


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of a paper.

  Attributes:
    title: what it shows.
    metrics: its columns, names of `paper_scores.METRICS`.
    rows: names of its rows.
    baselines: accuracies of other work that the paper lists in it, as printed.
  """

  title: str
  metrics: tuple[str, ...]
  rows: tuple[str, ...]
  baselines: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Curves:
  """A picture of curves over epochs.

  Attributes:
    name: of its file, after the paper's.
    title: what it shows.
    quantity: "loss" or "accuracy".
    rows: names of the runs in it.
  """

  name: str
  title: str
  quantity: str
  rows: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Paper:
  """What a paper reports.

  Attributes:
    title: of the section.
    reference: the paper's author, title and place of work.
    protocol: how the paper's figures and ours differ, for readers; it is true
      whatever the results are.
    rows: all runs.
    tables: made of them.
    curves: pictures of them.
    confusions: names of the rows whose confusion matrices are drawn.
    notes: for readers, after the tables; conclusions from results are in
      files beside these (`paper_notes`).
  """

  title: str
  protocol: str
  rows: tuple[Row, ...]
  tables: tuple[Table, ...]
  curves: tuple[Curves, ...] = ()
  confusions: tuple[str, ...] = ()
  notes: str = ""
  reference: str = ""

  def row(self, name: str) -> Row:
    """Returns a row by its name."""
    return next(row for row in self.rows if row.name == name)


def names(rows: tuple[Row, ...]) -> tuple[str, ...]:
  """Returns the names of rows."""
  return tuple(row.name for row in rows)


AVERAGES = tuple(
  f"{kind}_{score}"
  for kind in ("macro", "weighted")
  for score in ("precision", "recall", "f1")
)
ABLATION_METRICS = (
  "accuracy",
  "last_accuracy",
  "last_train_accuracy",
  "macro_f1",
  "loss",
)
