"""A whole sweep as one call."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax import config_fields
from fer_jax.errors import UserError, require
from fer_jax.object_stores import urls
from fer_jax.sweeps import plan

if TYPE_CHECKING:  # Optuna is an optional extra.
  from fer_jax.sweeps.trials import Trial


@dataclasses.dataclass(frozen=True, repr=False)
class SweepResult:
  """The trials of a sweep; printed, they are a table.

  Attributes:
    trials: all of them, by number.
    best: the one with the best score; None if no trial has one.
    best_config: a recipe of the best, for `get_config` and `fer-jax train`.
    page: the report, a page of HTML.
    table: the trials as a table of Markdown, the best first.
  """

  trials: "list[Trial]"
  best: "Trial | None"
  best_config: Path
  page: Path
  table: str

  def __repr__(self) -> str:
    return self.table


def run_sweep(
  config: ConfigDict,
  space: str | os.PathLike[str] | Mapping[str, Any],
  workdir: str | os.PathLike[str] = "runs/sweep",
  *,
  num_trials: int = 0,
  sampler: str = "tpe",
  pruner: str = "median",
  workers: int = 1,
  storage: str = "",
  fixed: Mapping[str, Any] | None = None,
) -> SweepResult:
  """Searches a space of configurations for the best validation score.

  The same call resumes a sweep that was interrupted.

  Args:
    config: what all trials share.
    space: a space by name ("lewis"), or a file with `get_space`, after which
      ":CHOICE" may follow; or what `get_space` returns, fields and values.
    workdir: trials go to `trials` there, the report to `report`.
    num_trials: how many in total; 0 is all points of a finite space.
    sampler: "tpe" (Bayesian), "grid" or "random".
    pruner: "median", "hyperband" or "none".
    workers: trials at once, each in a process if more than 1.
    storage: Optuna's database URL, or a file; "" is a journal in `workdir`.
    fixed: fields that are set in every trial, and not searched, as
      `get_config` takes them. They precede the values that the space sets, and
      these precede `config`.

  Raises:
    UserError: the space or a field is wrong, every trial failed, or the extra
      `sweep` is not installed.
    Interrupted: SIGINT or SIGTERM was received, or `max_minutes` are over; the
      state is saved.

  Example:
    config = fer_jax.get_config("resnet18")
    sweep = fer_jax.run_sweep(config, "lewis", "sweep", num_trials=2)
    print(sweep.best, sweep)
  """
  try:
    from fer_jax.sweeps import best_config, search, sweep_report, trials
  except ModuleNotFoundError as e:
    package = str(e.name).partition(".")[0]
    raise UserError(
      f"a sweep needs the package {package}: pip install 'fer_jax[sweep]'"
    ) from e
  configs.require_config(config)
  urls.require_named(workdir)
  folder = urls.require_local(workdir, "workdir")
  require(workers >= 1, "workers", workers, "be at least 1")
  require(num_trials >= 0, "num_trials", num_trials, "be at least 0")
  planned = plan.plan(
    config,
    space,
    config_fields.flatten(fixed or {}),
    folder,
    storage=storage,
    sampler=sampler,
    pruner=pruner,
    num_trials=num_trials,
  )
  found, page = search.search(planned, workers)
  return SweepResult(
    trials=found,
    best=trials.best_trial(found, planned.sign),
    best_config=page.parent / best_config.NAME,
    page=page,
    table=sweep_report.to_table(planned, found).to_markdown(),
  )
