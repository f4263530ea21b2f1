r"""Trains the rows of the five papers' tables and writes the tables.

fer-jax reproduce [--paper=pan,sutton,lewis,jiang,chang,recipes] \
  [--row=NAME ...] [--budget=8h] [--workdir=runs/papers] [--page=PAGE.md] \
  [--results=FILE.jsonl,...] [--config.FIELD=VALUE ...]

"recipes" are this package's own and no paper: what each part of them brings.
They are trained only if they are named. The cheapest rows come first; rows that
start from the weights of others come after these. --row trains single rows,
named as in the tables (--row=ResNet-101 --row="ResNet-50, transfer"), and those
they start from. The same command resumes where the budget ended or a signal
came; rows that are finished, here or on the other machines whose results
--results names, are not trained again. The tables of all results go to
WORKDIR/papers.md, or to --page, also after a signal. --budget=0 only writes the
page.
"""

import collections
import re
import sys
from collections.abc import Mapping, Sequence

from absl import flags

from fer_jax.cli import app, config_overrides, model_flags
from fer_jax.errors import Interrupted, UserError

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def define_flags() -> None:
  """Defines the command's flags."""
  flags.DEFINE_list("paper", [], "pan, sutton, lewis, jiang, chang; recipes.")
  flags.DEFINE_multi_string("row", [], "Only this row; may be repeated.")
  flags.DEFINE_string("budget", "8h", "Time for all: 90s, 30m, 8h.")
  flags.DEFINE_string("workdir", "runs/papers", "Where runs and results go.")
  flags.DEFINE_string("page", "", "Where the tables go; WORKDIR/papers.md.")
  flags.DEFINE_list("results", [], "Files of results of other machines.")
  config_overrides.define()


def seconds(text: str) -> float:
  """Reads a time.

  Args:
    text: a number and a unit: s, m or h.

  Raises:
    UserError: the text is not a time.

  >>> seconds("1.5h")
  5400.0
  """
  match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
  if not match:
    raise UserError(f"budget={text} must be a time: 90s, 30m or 8h")
  return float(match[1]) * _UNITS[match[2]]


def main(argv: Sequence[str]) -> None:
  """Reproduces what the flags say."""
  del argv
  given = flags.FLAGS
  budget = seconds(given.budget)
  model_flags.start()
  from fer_jax.object_stores import urls
  from fer_jax.studies import (
    paper_notes,
    paper_page,
    paper_results,
    reproduction,
  )
  from fer_jax.studies.papers import PAPERS

  workdir = urls.require_local(given.workdir, "workdir")
  page = urls.require_local(given.page or workdir / "papers.md", "page")
  paper_page.check_output(page)
  changed = config_overrides.texts(given)
  papers = given.paper or [name for name in PAPERS if name != "recipes"]
  files = [
    urls.require_local(name, "results", is_input=True) for name in given.results
  ]
  others = paper_results.read(files)
  failures: dict[str, list[str]] = collections.defaultdict(list)
  interruption = None
  try:
    reproduction.reproduce(
      papers,
      workdir,
      budget,
      changed,
      others,
      lambda row, reason: failures[reason].append(row),
      given.row,
    )
  except Interrupted as e:
    interruption = e
  files.append(workdir / reproduction.RESULTS)
  results = paper_results.read(files, missing_ok=True)
  paper_page.write(results, page, paper_notes.read(files, results))
  print(f"wrote {page}", file=sys.stderr)
  if interruption:
    raise interruption
  if failures:
    raise UserError(f"not trained: {summary(failures)}")


def summary(failures: Mapping[str, Sequence[str]]) -> str:
  """Describes which rows were not trained, in one line.

  Args:
    failures: the rows, by the reason.

  >>> summary({"no data": ["pan, A", "pan, B"], "no weights": ["lewis, C"]})
  '2 rows: no data; lewis, C: no weights'
  """
  return "; ".join(
    f"{rows[0] if len(rows) == 1 else f'{len(rows)} rows'}: {reason}"
    for reason, rows in failures.items()
  )


COMMAND = app.Command(
  "reproduce", __doc__, define_flags, main, handles_signals=True
)

if __name__ == "__main__":
  COMMAND.run()
