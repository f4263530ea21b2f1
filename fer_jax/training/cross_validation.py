"""Cross-validation: one run per fold, results pooled over all folds."""

import dataclasses
import json
import os

import numpy as np
from ml_collections import ConfigDict

from fer_jax import config as configs
from fer_jax.data.datasets import registry
from fer_jax.errors import UserError, require
from fer_jax.files import atomic_write
from fer_jax.object_stores import urls
from fer_jax.training import train_loop
from fer_jax.training.logging import metric_writer
from fer_jax.training.runtime.signals import check_deadline, deadline_after


@dataclasses.dataclass(frozen=True)
class Fold:
  """How the best epoch of one fold did on the examples held out for it."""

  fold: int
  best_epoch: int
  num_test: int
  test_loss: float
  test_accuracy: float


@dataclasses.dataclass(frozen=True)
class Folds:
  """The results of all folds; `str()` is a table.

  Attributes:
    folds: the result of each fold.
  """

  folds: tuple[Fold, ...]

  @property
  def accuracy(self) -> float:
    """The fraction of all examples that the fold without them got right."""
    return self._pooled("test_accuracy")

  @property
  def loss(self) -> float:
    """The mean test loss over all examples."""
    return self._pooled("test_loss")

  @property
  def standard_deviation(self) -> float:
    """The sample standard deviation of the folds' accuracies."""
    return float(np.std([f.test_accuracy for f in self.folds], ddof=1))

  def _pooled(self, name: str) -> float:
    values = [getattr(f, name) for f in self.folds]
    return float(np.average(values, weights=[f.num_test for f in self.folds]))

  def __str__(self) -> str:
    lines = ["fold  best epoch  examples  test loss  test accuracy"]
    lines += [
      f"{f.fold:4}  {f.best_epoch:10}  {f.num_test:8,}  {f.test_loss:9.4f}"
      f"  {f.test_accuracy:13.2%}"
      for f in self.folds
    ]
    total = sum(f.num_test for f in self.folds)
    lines.append(
      f"pooled over {total:,} examples: loss {self.loss:.4f}, accuracy"
      f" {self.accuracy:.2%} (folds +- {self.standard_deviation:.2%})"
    )
    return "\n".join(lines)

  __repr__ = __str__


def cross_validate(
  config: ConfigDict, workdir: str | os.PathLike[str]
) -> Folds:
  """Trains every fold and pools the results, or resumes where it stopped.

  Args:
    config: for a dataset with the option `fold`, whose value is not used.
    workdir: fold k is written to `fold_k` in there, the results to
      `folds.json`.

  Raises:
    UserError: the dataset has no folds, or as `train_and_evaluate`.
    Interrupted: SIGINT or SIGTERM was received, or `max_minutes` are over; the
      state is saved.

  Example:
    config = fer_jax.get_config("jiang_ri:ckplus", num_epochs=1)
    folds = fer_jax.run_cross_validation(config, "runs/folds")
    print(folds.accuracy, folds)
  """
  configs.require_config(config)
  urls.require_named(workdir)
  must = "be 0 in cross-validation, which needs held-out examples"
  require(not config.overfit, "overfit", config.overfit, must)
  workdir = urls.require_local(workdir, "workdir")
  num_folds = num_folds_of(config)
  deadline = deadline_after(config.max_minutes)
  results = []
  for fold in range(num_folds):
    folder = workdir / f"fold_{fold}"
    kinds = [record["kind"] for record in metric_writer.read(folder)]
    if kinds[-1:] != ["summary"]:  # else it is only evaluated again
      check_deadline(deadline)
    of_fold = config.copy_and_resolve_references()
    with of_fold.unlocked():
      of_fold.dataset.fold = fold
    print(f"fold {fold} of {num_folds}", flush=True)
    of_fold.lock()
    result = train_loop.train_and_evaluate(of_fold, folder, deadline=deadline)
    assert result.test  # A fold holds out at least one example.
    results.append(
      Fold(
        fold=fold,
        best_epoch=result.best_epoch,
        num_test=result.test.num_examples,
        test_loss=result.test.loss,
        test_accuracy=result.test.accuracy,
      )
    )
  folds = Folds(tuple(results))
  pooled = {"accuracy": folds.accuracy, "loss": folds.loss}
  text = json.dumps(dataclasses.asdict(folds) | {"pooled": pooled}, indent=2)
  try:
    with atomic_write(workdir / "folds.json") as temporary:
      temporary.write_text(text)
  except OSError as e:
    raise UserError(
      f"cannot write {e.filename}: {e.strerror}; free disk space, and rerun the"
      " command"
    ) from e
  return folds


def num_folds_of(config: ConfigDict) -> int:
  """Returns the number of folds of a configuration's dataset.

  Raises:
    UserError: the dataset has no folds, or their number is out of its range.
  """
  options = registry.default_options(config.dataset.name)
  if "fold" not in options:
    raise UserError(
      f"dataset {config.dataset.name} has no folds: use one split by subject,"
      " such as dataset.name=ckplus"
    )
  num_folds = config.dataset.get("num_folds", options["num_folds"])
  ok = isinstance(num_folds, int) and num_folds >= 2
  must = "be an integer of at least 2"
  require(ok, "dataset.num_folds", num_folds, must)
  return num_folds
