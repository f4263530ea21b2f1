"""Loss and accuracy of a whole split: every image once, on any devices."""

from collections.abc import Callable

import jax

from fer_jax.data import pipeline
from fer_jax.training import data_parallel
from fer_jax.training.metrics import Sums
from fer_jax.training.train_setup import Setup
from fer_jax.training.train_state import Tree


class Evaluator:
  """Evaluates splits with one compiled step."""

  def __init__(self, setup: Setup):
    self._setup = setup
    self._step = data_parallel.evaluation_call(setup.spread, setup.steps)
    self._resident: dict[str, Tree] = {}

  def __call__(self, variables: Tree, split_name: str) -> dict[str, float]:
    """Evaluates a split.

    Args:
      variables: `params` and `batch_stats`, as `Spread.replicate` places them.
      split_name: the split.

    Returns:
      `loss` and `accuracy`; the loss without smoothing or class weights.

    Raises:
      UserError: the split has no rows.
    """
    sums = self._sums(self._step, variables, Sums.zeros(), split_name)
    return sums.compute()

  def together(
    self, variables: Tree, split_name: str
  ) -> list[dict[str, float]]:
    """Evaluates several runs' variables at once, on one device.

    Args:
      variables: as `data_parallel.stack` puts them together.
      split_name: the split.

    Returns:
      For each run, what a call returns.
    """
    num_runs = jax.tree.leaves(variables)[0].shape[0]
    step = data_parallel.evaluation_call(
      self._setup.spread, self._setup.steps, together=True
    )
    zeros = data_parallel.stack([Sums.zeros()] * num_runs)
    sums = self._sums(step, variables, zeros, split_name)
    return [
      jax.tree.map(lambda x, run=run: x[run], sums).compute()
      for run in range(num_runs)
    ]

  def _sums(
    self,
    step: Callable[..., Tree],
    variables: Tree,
    zeros: Sums,
    split_name: str,
  ) -> Sums:
    """Sums over a split, on the host."""
    setup = self._setup
    split = setup.dataset.split(split_name)
    if split_name not in self._resident:
      self._resident[split_name] = setup.resident(split)
    data = self._resident[split_name]
    sums = setup.spread.replicate(zeros)
    for batch in pipeline.evaluation_batches(
      split,
      setup.config.eval_batch_size,
      setup.config.data_loader,
      jax.process_index(),
      jax.process_count(),
    ):
      sums = step(variables, sums, data, setup.spread.shard(batch))
    return setup.spread.fetch(sums)
