"""Cross-validation: one run a fold, results pooled over all."""

import dataclasses
import json
import os
import pathlib

import numpy as np
from ml_collections import ConfigDict

from fer_jax.data.datasets import registry
from fer_jax.errors import UserError, require
from fer_jax.training import train_loop


@dataclasses.dataclass(frozen=True)
class Fold:
  """How the best epoch of one fold did on the rows held out for it."""

  fold: int
  best_epoch: int
  num_test: int
  test_loss: float
  test_accuracy: float


@dataclasses.dataclass(frozen=True)
class Folds:
  """All folds; `str()` is a table.

  Attributes:
    folds: one each.
  """

  folds: tuple[Fold, ...]

  @property
  def accuracy(self) -> float:
    """Pooled: the share of all rows that the fold without them got right."""
    return self._pooled("test_accuracy")

  @property
  def loss(self) -> float:
    """Pooled: the mean over all rows."""
    return self._pooled("test_loss")

  @property
  def spread(self) -> float:
    """Standard deviation of the folds' accuracies (n - 1)."""
    return float(np.std([f.test_accuracy for f in self.folds], ddof=1))

  def _pooled(self, name: str) -> float:
    values = [getattr(f, name) for f in self.folds]
    return float(np.average(values, weights=[f.num_test for f in self.folds]))

  def __str__(self) -> str:
    lines = ["fold  best epoch  test rows  test loss  test accuracy"]
    lines += [
      f"{f.fold:4}  {f.best_epoch:10}  {f.num_test:9,}  {f.test_loss:9.4f}"
      f"  {f.test_accuracy:13.2%}"
      for f in self.folds
    ]
    total = sum(f.num_test for f in self.folds)
    lines.append(
      f"pooled over {total:,} rows: loss {self.loss:.4f}, accuracy"
      f" {self.accuracy:.2%} (folds +- {self.spread:.2%})"
    )
    return "\n".join(lines)


def cross_validate(
  config: ConfigDict, workdir: str | os.PathLike[str]
) -> Folds:
  """Trains every fold and pools the results; goes on with what is there.

  Args:
    config: of a data set that has the option `fold`; its value is not used.
    workdir: fold k goes to `fold_k` there, the results to `folds.json`.

  Raises:
    UserError: the data set has no folds, or as `train_loop.train`.
    Interrupted: SIGINT or SIGTERM came; what was trained is saved.
  """
  must = "be 0 where rows are held out, which it leaves out"
  require(not config.overfit, "overfit", config.overfit, must)
  workdir = pathlib.Path(workdir)
  options = registry.default_options(config.dataset.name)
  if "fold" not in options:
    raise UserError(
      f"data set {config.dataset.name} has no folds to cross-validate:"
      " ckplus has"
    )
  num_folds = config.dataset.num_folds or options["num_folds"]
  results = []
  for fold in range(num_folds):
    of_fold = config.copy_and_resolve_references()
    with of_fold.unlocked():
      of_fold.dataset.fold = fold
    print(f"fold {fold} of {num_folds}", flush=True)
    of_fold.lock()
    summary = train_loop.train(of_fold, workdir / f"fold_{fold}")
    results.append(
      Fold(
        fold=fold,
        best_epoch=summary["best_epoch"],
        num_test=summary["test_count"],
        test_loss=summary["test_loss"],
        test_accuracy=summary["test_accuracy"],
      )
    )
  folds = Folds(tuple(results))
  pooled = {"accuracy": folds.accuracy, "loss": folds.loss}
  (workdir / "folds.json").write_text(
    json.dumps(dataclasses.asdict(folds) | {"pooled": pooled}, indent=2)
  )
  return folds
