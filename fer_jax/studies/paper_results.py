"""Results of the rows of the papers' tables, as JSON Lines.

One object per row, seed and settings: what its run trained so far. Files of
several machines can be put together.
"""

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int
from ml_collections import ConfigDict

from fer_jax.data import parallel
from fer_jax.errors import UserError
from fer_jax.evaluation import predictions
from fer_jax.evaluation.confusion import count_confusion
from fer_jax.evaluation.scores import leak_free_accuracy
from fer_jax.files import atomic_write
from fer_jax.inference.trained_model import TrainedModel
from fer_jax.studies.study_plots import curves_of
from fer_jax.training.logging import metric_writer

Result = dict[str, Any]
Key = tuple[str, str, int, str]  # paper, row, seed and settings


def key_of(result: Result) -> Key:
  """Returns what identifies a result.

  Settings other than the recipe's, `overrides`, make it another one.
  """
  settings = json.dumps(overrides_of(result), sort_keys=True)
  return result["paper"], result["row"], result["seed"], settings


def overrides_of(result: Result) -> dict[str, Any]:
  """Returns the fields that the user set, which change what is computed."""
  return result.get("overrides", {})  # Older files lack it.


def result_of(run: Path, config: ConfigDict) -> Result:
  """Returns the result of a run, by its best epoch so far.

  Args:
    run: its workdir.
    config: its configuration.
  """
  found = predictions.predict(
    [TrainedModel.load(run)],
    "validation",
    manual_dir=config.dataset.manual_dir,
    data_dir=config.dataset.data_dir,
  )
  return {
    "dtype": config.dtype,
    **scores_of_run(
      metric_writer.read(run),
      found.class_names,
      found.labels,
      found.predicted,
      found.leaks,
    ),
    "machine": machine(),
  }


def scores_of_run(
  records: Sequence[dict[str, Any]],
  class_names: Sequence[str],
  labels: Int[np.ndarray, " n"],
  predicted: Int[np.ndarray, " n"],
  leaks: Bool[np.ndarray, " n"],
) -> Result:
  """Returns the part of a result that follows from metrics and predictions.

  Args:
    records: of the run's `metrics.jsonl`.
    class_names: of the dataset.
    labels: true classes of the validation split.
    predicted: classes that the best epoch predicts.
    leaks: which images are in the training split too.
  """
  epochs = [record for record in records if record["kind"] == "epoch"]
  best = [record for record in epochs if record["best"]][-1]
  right = predicted == labels
  confusion = count_confusion(labels, predicted, len(class_names))
  return {
    "epochs": epochs[-1]["epoch"],
    "finished": records[-1]["kind"] == "summary",
    "best_epoch": best["epoch"],
    "accuracy": float(right.mean()),
    "accuracy_without_leaks": leak_free_accuracy(right, leaks),
    "loss": best["validation_loss"],
    "train_loss": best["train_loss"],
    "minutes": epochs[-1]["seconds"] / 60,
    "class_names": list(class_names),
    "confusion": confusion.tolist(),
    "curves": curves_of(epochs),
  }


def machine() -> str:
  """Returns the name of the accelerator, or cores and name of the processor."""
  kind = jax.devices()[0].device_kind
  if kind != "cpu":
    return str(kind)
  try:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next(x.split(":")[1] for x in lines if x.startswith("model name"))
  except (OSError, StopIteration):  # Not Linux on x86.
    name = kind
  name = re.sub(r"\((R|TM)\)|\bProcessor\b", "", name).strip()
  return f"{parallel.num_cores()} cores of {name}"


def read(files: Iterable[Path], *, missing_ok: bool = False) -> list[Result]:
  """Reads files of results, one result for each row, seed and settings.

  Of several, a finished one counts, then the one with more epochs, then the
  last.

  Args:
    files: in any order of machines.
    missing_ok: whether a file need not exist.

  Raises:
    UserError: a file cannot be read.
  """
  found: dict[Key, Result] = {}
  for file in files:
    try:
      if missing_ok and not file.exists():
        continue
      for line in filter(None, file.read_text().splitlines()):
        result = json.loads(line)
        before = found.setdefault(key_of(result), result)
        if progress(result) >= progress(before):
          found[key_of(result)] = result
    except OSError as e:
      raise UserError(f"cannot read results of {file}: {e.strerror}") from e
    except (ValueError, KeyError, TypeError) as e:
      raise UserError(f"cannot read results of {file}: {e}") from e
  return list(found.values())


def progress(result: Result) -> tuple[bool, int]:
  """Returns whether a result's run is finished, and its epochs."""
  return result["finished"], result["epochs"]


def planned_epochs(result: Result) -> int:
  """Returns the epochs of the row's recipe, or of a run that has more."""
  own: int = result["planned_epochs"]
  return max(own, overrides_of(result).get("num_epochs", own))


def is_complete(result: Result) -> bool:
  """Returns whether a run is finished, with the recipe's epochs or more."""
  own = result["planned_epochs"]
  epochs = overrides_of(result).get("num_epochs", own)
  return bool(result["finished"] and epochs >= own)


def by_settings(results: Iterable[Result]) -> list[list[Result]]:
  """Groups the results of a row by settings, the recipe's own first.

  A group is what is averaged: if seeds are complete, it has only these.

  Args:
    results: of one row.
  """
  groups: dict[str, list[Result]] = {}
  for result in results:
    groups.setdefault(key_of(result)[-1], []).append(result)
  averaged = [
    [result for result in group if is_complete(result)] or group
    for group in groups.values()
  ]
  return sorted(averaged, key=lambda group: bool(overrides_of(group[0])))


def shown(results: Iterable[Result]) -> list[Result]:
  """Returns the results that tables and pictures show, by rows.

  Of rows that were trained with several settings, these are the recipe's own,
  or else those that were trained first.
  """
  rows: dict[tuple[str, str], list[Result]] = {}
  for result in results:
    rows.setdefault((result["paper"], result["row"]), []).append(result)
  return [result for row in rows.values() for result in by_settings(row)[0]]


@contextlib.contextmanager
def cannot_write() -> Iterator[None]:
  """Raises UserError for a file that cannot be written."""
  try:
    yield
  except OSError as e:
    raise UserError(
      f"cannot write {e.filename}: {e.strerror or e}; free disk space or give"
      " another folder"
    ) from e


def save(file: Path, results: Iterable[Result]) -> None:
  """Replaces the results of rows and seeds in a file, or adds them to it.

  Raises:
    UserError: the file cannot be read or written.
  """
  every = [*read([file], missing_ok=True), *results]
  kept = {(r["paper"], r["row"], r["seed"]): r for r in every}
  with cannot_write(), atomic_write(file, parents=True) as temporary:
    lines = [json.dumps(result) + "\n" for result in kept.values()]
    temporary.write_text("".join(lines))
