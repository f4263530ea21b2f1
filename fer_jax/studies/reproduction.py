"""Trains the rows of the papers' tables, and writes the tables.

Results are JSON Lines, one object per row of a table and seed: what a row's
run trained so far. Files of several machines can be put together.
"""

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fer_jax import config_fields, models, recipes
from fer_jax.errors import UserError, choose
from fer_jax.evaluation import predictions
from fer_jax.evaluation.scores import score
from fer_jax.files import atomic_write
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.models.summary import summarize
from fer_jax.studies.papers import PAPERS, Row
from fer_jax.training import config_check, train_loop
from fer_jax.training.logging import metric_writer

Result = dict[str, Any]
RESULTS = "results.jsonl"


class _BudgetSpent(Exception):
  """Ends a run at an epoch's end; it is resumed next time."""


def reproduce(
  papers: Sequence[str],
  folder: Path,
  budget: float,
  overrides: dict[str, Any],
  others: Sequence[Result] = (),
) -> list[Result]:
  """Trains rows of the papers' tables, the cheapest first, within a budget.

  The same call resumes what the last one left: a row that stopped in the middle
  resumes from its last epoch, and a finished one is not trained again.

  Args:
    papers: keys of `PAPERS`.
    folder: the runs go to `runs` there, results to `results.jsonl`.
    budget: seconds of training and evaluation in all; a run ends with the epoch
      in which it is spent.
    overrides: fields of every recipe, such as `dataset.manual_dir`.
    others: results of other machines; rows finished there are not trained.

  Returns:
    The results in the folder, those of earlier calls included.

  Raises:
    UserError: a paper is unknown, or a run cannot be trained.
    Interrupted: SIGINT or SIGTERM came; the state is saved.
  """
  jobs = [
    (paper, row, load_recipe(row, overrides))
    for paper in papers
    for row in PAPERS[choose("paper", paper, PAPERS)].rows
  ]
  jobs.sort(key=lambda job: cost(job[2]))
  elsewhere = {_key(result) for result in others if result["finished"]}
  deadline = time.monotonic() + budget
  for paper, row, config in jobs:
    if time.monotonic() >= deadline:
      break
    if (paper, row.name, config.seed) in elsewhere:
      continue
    workdir = folder / "runs" / f"{paper}-{slug(row.name)}"
    _train(config, workdir, deadline)
    result = {"paper": paper, "row": row.name, **result_of(workdir, config)}
    save(folder / RESULTS, [result])
  return read([folder / RESULTS])


def load_recipe(row: Row, overrides: dict[str, Any]) -> ConfigDict:
  """Returns the checked configuration of a row."""
  config = recipes.load_recipe(row.recipe)
  config_fields.set_fields(config, row.overrides)
  fields = config_fields.parse_fields(config, overrides)
  config_fields.set_fields(config, fields)
  config_check.check(config)
  return config


def cost(config: ConfigDict) -> float:
  """Returns multiply-accumulates of one image times the epochs planned."""
  options = config.model.to_dict()
  model = models.create(options.pop("name"), 10, **options)
  size = config.input.image_size or 48  # as FER2013's images
  macs = summarize(model, (size, size, config.input.channels or 1)).macs
  return float(macs * config.num_epochs)


def slug(name: str) -> str:
  """Returns a name that can be a folder's.

  >>> slug("AlexNet, run A")
  'alexnet-run-a'
  """
  kept = "".join(c if c.isalnum() or c == "." else " " for c in name.lower())
  return "-".join(kept.split())


def _train(config: ConfigDict, workdir: Path, deadline: float) -> None:
  def after_epoch(metrics: dict[str, Any]) -> None:
    last = metrics["epoch"] >= config.num_epochs
    if not last and time.monotonic() >= deadline:
      raise _BudgetSpent

  try:
    train_loop.train_and_evaluate(
      config, workdir, after_epoch, evaluate_test=False
    )
  except _BudgetSpent:
    pass


def result_of(workdir: Path, config: ConfigDict) -> Result:
  """Returns what a run has come to, by its best epoch so far."""
  records = metric_writer.read(workdir)
  epochs = [record for record in records if record["kind"] == "epoch"]
  best = [record for record in epochs if record["best"]][-1]
  found = predictions.predict([TrainedModel.load(workdir)], "validation")
  scores = score(
    found.probabilities, found.targets, found.class_names, num_bootstrap=0
  )
  right = found.predicted == found.labels
  return {
    "seed": config.seed,
    "epochs": epochs[-1]["epoch"],
    "planned_epochs": config.num_epochs,
    "finished": records[-1]["kind"] == "summary",
    "best_epoch": best["epoch"],
    "images": len(right),
    "accuracy": float(right.mean()),
    "accuracy_without_leaks": float(right[~found.leaks].mean()),
    "macro_f1": scores.macro.f1,
    "loss": best["validation_loss"],
    "train_loss": best["train_loss"],
    "minutes": epochs[-1]["seconds"] / 60,
    "device": jax.devices()[0].device_kind,
  }


def read(files: Iterable[Path]) -> list[Result]:
  """Reads files of results; of one row and seed the later one counts.

  Raises:
    UserError: a file cannot be read.
  """
  found: dict[tuple[Any, ...], Result] = {}
  for file in files:
    try:
      lines = file.read_text().splitlines() if file.exists() else []
      for line in filter(None, lines):
        result = json.loads(line)
        found[_key(result)] = result
    except (OSError, ValueError, KeyError) as e:
      raise UserError(f"cannot read results of {file}: {e}") from e
  return list(found.values())


def save(file: Path, results: Iterable[Result]) -> None:
  """Adds results to a file, in the place of earlier ones of the same rows."""
  kept = {_key(r): r for r in [*read([file]), *results]}
  with atomic_write(file, parents=True) as temporary:
    lines = [json.dumps(result) + "\n" for result in kept.values()]
    temporary.write_text("".join(lines))


def _key(result: Result) -> tuple[Any, ...]:
  return result["paper"], result["row"], result["seed"]


def render(results: Sequence[Result]) -> str:
  """Returns all tables as Markdown, the papers' figures beside ours."""
  parts = [
    "# The five papers",
    "Every figure of ours is of the validation split (PublicTest), which also"
    " chose the epoch; the test split was not read. A row that trained fewer"
    " epochs than planned says so. Seeds are averaged. Minutes are those of"
    " training; on the H100 seven runs shared the card.",
  ]
  for name, paper in PAPERS.items():
    parts += [f"## {paper.title}", paper.protocol]
    mine = [r for r in results if r["paper"] == name]
    parts.append(_table(paper.rows, mine))
    missing = [
      row.name for row in paper.rows if row.name not in {r["row"] for r in mine}
    ]
    if missing:
      parts.append(f"Not trained yet: {'; '.join(missing)}.")
  parts.append(
    "`python -m fer_jax.reproduce` trains rows and writes this page."
  )
  return "\n\n".join(filter(None, parts)) + "\n"


_COLUMNS = (
  "model",
  "accuracy: paper",
  "ours",
  "without leaks",
  "macro F1",
  "loss: paper",
  "ours",
  "epochs",
  "best",
  "seeds",
  "minutes",
  "device",
)


def _table(rows: Sequence[Row], results: Sequence[Result]) -> str:
  lines = []
  for row in rows:
    mine = [r for r in results if r["row"] == row.name]
    if not mine:
      continue

    def mean(field: str, mine: list[Result] = mine) -> float:
      return float(np.mean([r[field] for r in mine]))

    ended = all(r["finished"] for r in mine)
    planned = max(r["planned_epochs"] for r in mine)
    epochs = f"{mean('epochs'):.0f}" + ("" if ended else f" of {planned}")
    cells = [
      row.name,
      _percent(row.accuracy),
      _percent(mean("accuracy")),
      _percent(mean("accuracy_without_leaks")),
      f"{mean('macro_f1'):.3f}",
      "-" if row.loss is None else f"{row.loss:.3f}",
      f"{mean('loss'):.3f}",
      epochs,
      f"{mean('best_epoch'):.0f}",
      str(len(mine)),
      f"{mean('minutes'):.1f}",
      ", ".join(sorted({r["device"] for r in mine})),
    ]
    lines.append(f"| {' | '.join(cells)} |")
  if not lines:
    return ""
  head = f"| {' | '.join(_COLUMNS)} |"
  rule = f"|---|{'---:|' * (len(_COLUMNS) - 2)}---|"
  return "\n".join([head, rule, *lines])


def _percent(value: float | None) -> str:
  return "-" if value is None else f"{100 * value:.1f} %"
