"""Trains the rows of the papers' tables within a budget of time."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax import config_fields, models, recipes
from fer_jax.errors import Interrupted, UserError, choose, did_you_mean
from fer_jax.models.summary import summarize
from fer_jax.object_stores import urls
from fer_jax.studies import paper_results
from fer_jax.studies.paper_results import Key, Result
from fer_jax.studies.papers import PAPERS, Row
from fer_jax.studies.training import check_same, first_deadline, is_done
from fer_jax.training import config_check, train_loop, workdir
from fer_jax.training.logging import metric_writer
from fer_jax.training.runtime.signals import check_deadline

RESULTS = "results.jsonl"


class _BudgetSpent(Exception):
  """Ends a run at an epoch's end; it is resumed next time."""


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
  """A row that is to be trained.

  Attributes:
    paper: key of `PAPERS`.
    row: of it.
    config: its configuration; `init_from` of another row is filled in later.
    description: the part of its result that is known before it is trained.
    source: the job of the row that it starts from, if any.
  """

  paper: str
  row: Row
  config: ConfigDict
  description: Result
  source: "Job | None" = None

  @property
  def key(self) -> Key:
    """What identifies its result."""
    return paper_results.key_of(self.description)

  @property
  def folder(self) -> str:
    """The name of its run's folder."""
    seed = f"-seed{self.config.seed}" if self.config.seed else ""
    return f"{self.paper}-{self.row.slug}{seed}"

  @property
  def cost(self) -> float:
    """Multiply-accumulates of an image times epochs, with the source's."""
    options = self.config.model.to_dict()
    model = models.create(options.pop("name"), 10, **options)
    size = self.config.input.image_size or 48  # as FER2013's images
    shape = (size, size, self.config.input.channels or 1)
    own = float(summarize(model, shape).macs * self.config.num_epochs)
    return own + (self.source.cost if self.source else 0.0)


def plan(
  papers: Sequence[str],
  overrides: dict[str, Any],
  others: Sequence[Result] = (),
  only: Sequence[str] = (),
) -> list[Job]:
  """Returns the jobs that are to be done, the cheapest first.

  Args:
    papers: keys of `PAPERS`.
    overrides: fields of every recipe, such as `dataset.manual_dir`.
    others: results of other machines; rows finished there with the same
      settings are left out, unless another row starts from their weights.
    only: names of rows; these and the rows they start from are planned. Empty
      for all.

  Raises:
    UserError: a paper, a row or a field is unknown, or several papers have a
      row of that name.
  """
  for paper in papers:
    choose("paper", paper, PAPERS)
  for name in only:
    _check_row(name, papers)
  elsewhere = {
    paper_results.key_of(result) for result in others if result["finished"]
  }
  jobs: dict[Key, Job] = {}
  for paper in papers:
    rows = PAPERS[paper]
    for row in rows.rows:
      if only and row.name not in only:
        continue
      source = None
      if row.init_from:
        source = _job(paper, rows.row(row.init_from), overrides)
      job = _job(paper, row, overrides, source)
      if job.key not in elsewhere:
        needed = [source] if source else []
        jobs |= {each.key: each for each in (*needed, job)}
  return sorted(jobs.values(), key=lambda job: job.cost)


def _check_row(name: str, papers: Sequence[str]) -> None:
  """Checks that exactly one of the papers has a row."""
  rows = {paper: [row.name for row in PAPERS[paper].rows] for paper in papers}
  having = [paper for paper, names in rows.items() if name in names]
  if len(having) > 1:
    raise UserError(
      f"row={name} is a row of several papers: add"
      f" {' or '.join(f'paper={paper}' for paper in having)}"
    )
  if having:
    return
  every = [each for names in rows.values() for each in names]
  if len(rows) == 1:
    choose("row", name, every)
  raise UserError(
    f"unknown row {name!r}{did_you_mean(name, every)}: paper=NAME lists the"
    f" rows of one of {', '.join(rows)}"
  )


def _job(
  paper: str,
  row: Row,
  overrides: Mapping[str, Any],
  source: Job | None = None,
) -> Job:
  own, config = load_recipe(row, {}), load_recipe(row, overrides)
  # The machine decides the dtype, and the source `init_from`.
  ignored = ("seed", "dtype", *(["init_from"] if source else []))
  changes = configs.differences(own, config, ignored)
  values = config_fields.flatten(configs.to_json(config))
  changed = {
    field: values.get(field)
    for field, _, _ in (change.partition(":") for change in changes)
  }
  description = {
    "paper": paper,
    "row": row.name,
    "seed": config.seed,
    "overrides": (source.description["overrides"] if source else {}) | changed,
    "planned_epochs": own.num_epochs,
  }
  return Job(paper, row, config, description, source)


def reproduce(
  papers: Sequence[str],
  folder: Path,
  budget: float,
  overrides: dict[str, Any],
  others: Sequence[Result] = (),
  warn: Callable[[str, str], None] = lambda row, reason: print(
    f"{row}: {reason}"
  ),
  only: Sequence[str] = (),
) -> list[Result]:
  """Trains rows of the papers' tables, the cheapest first, within a budget.

  The same call resumes what the last one left: a row that stopped in the middle
  resumes from its last epoch, and a finished one is not trained again. A row
  whose run has another configuration stays as it is.

  Args:
    papers: keys of `PAPERS`.
    folder: the runs go to `runs` there, results to `results.jsonl`.
    budget: seconds of training and evaluation in all; a run ends with the first
      evaluated epoch after they are spent. Nothing is trained then, but the
      results of what earlier calls trained are completed.
    overrides: as in `plan`.
    others: as in `plan`.
    warn: called with the row and the reason for each row that cannot be
      trained, such as for missing data or weights, or whose run has another
      configuration; the others are.
    only: as in `plan`.

  Returns:
    The results in the folder, those of earlier calls included.

  Raises:
    UserError: a paper, a row or a field is unknown, or the folder is a URL.
    Interrupted: SIGINT or SIGTERM came, or `max_minutes` are over; the state is
      saved, and the result recorded.
  """
  folder = urls.require_local(folder, "workdir")
  jobs, file = plan(papers, overrides, others, only), folder / RESULTS
  limit = first_deadline([job.config for job in jobs])
  deadline = time.monotonic() + budget
  for i, job in enumerate(jobs, 1):
    is_spent = time.monotonic() >= deadline
    if not is_spent:
      check_deadline(limit)
    run = folder / "runs" / job.folder
    try:
      if is_spent:  # What earlier calls trained may not be recorded yet.
        if _holds(run, job):
          _record(job, run, file)
        continue
      if not _set_init_from(job, folder):
        continue  # The row it starts from could not be finished.
      if metric_writer.read(run):
        check_same(run, job.config)
      if not is_done(run, job.config):
        print(f"\nrow {i} of {len(jobs)}: {job.paper}, {job.row.name}")
        _train(job, run, file, deadline, limit)
      _record(job, run, file)
    except UserError as e:
      warn(f"{job.paper}, {job.row.name}", str(e))
  return paper_results.read([file], missing_ok=True)


def load_recipe(row: Row, overrides: Mapping[str, Any]) -> ConfigDict:
  """Returns the checked configuration of a row."""
  config = recipes.load_recipe(row.recipe)
  config_fields.set_fields(config, row.overrides)
  fields = config_fields.parse_fields(config, overrides)
  recipes.set_fields(config, fields)
  config_check.check(config)
  return config


def _set_init_from(job: Job, folder: Path) -> bool:
  """Fills in where a row starts from; returns whether it can start."""
  if not job.source:
    return True
  run, source = (folder / "runs" / each.folder for each in (job, job.source))
  if (run / workdir.CONFIG).exists():  # It may be elsewhere by now.
    init_from = workdir.read_config(run).init_from
  elif is_done(source, job.source.config):
    init_from = str(source)
  else:
    return False
  with job.config.unlocked():
    job.config.init_from = init_from
  return True


def _holds(run: Path, job: Job) -> bool:
  """Returns whether a folder holds the run of a job."""
  filled_in = ("init_from",) if job.source else ()
  try:
    before = workdir.read_config(run)
  except (OSError, ValueError):
    return False
  return not configs.differences(before, job.config, filled_in)


def _record(job: Job, run: Path, file: Path) -> None:
  """Saves the result of a run, if it was trained further than the file says."""
  records = metric_writer.read(run)
  epochs = [r["epoch"] for r in records if r["kind"] == "epoch"]
  if not epochs:
    return
  trained = records[-1]["kind"] == "summary", epochs[-1]
  for before in paper_results.read([file], missing_ok=True):
    if paper_results.key_of(before) == job.key:
      if paper_results.progress(before) == trained:
        return
  result = paper_results.result_of(run, job.config)
  paper_results.save(file, [job.description | result])


def _train(
  job: Job, run: Path, file: Path, deadline: float, limit: float
) -> None:
  """Trains a row until it is finished or the time is over."""

  def after_epoch(metrics: dict[str, Any]) -> None:
    last = metrics["epoch"] >= job.config.num_epochs
    if not last and time.monotonic() >= deadline:
      raise _BudgetSpent

  try:
    train_loop.train_and_evaluate(
      job.config, run, after_epoch, evaluate_test=False, deadline=limit
    )
  except _BudgetSpent:
    pass
  except Interrupted:
    with contextlib.suppress(UserError):  # It must not hide the interruption.
      _record(job, run, file)
    raise
