"""Training batches on the devices, in the order that grain decides."""

import grain
import jax

from fer_jax.data import pipeline
from fer_jax.training.experiment import Experiment
from fer_jax.training.train_state import Tree


class TrainBatches:
  """Iterates over the training batches of an experiment.

  Attributes:
    iterator: grain's iterator, whose state is saved in checkpoints.
  """

  def __init__(self, experiment: Experiment):
    """Starts before the first batch; restoring `iterator` moves it.

    Args:
      experiment: its dataset, order of batches and devices.
    """
    self._experiment = experiment
    self.iterator: grain.DatasetIterator = pipeline.training_batches(
      experiment.train_split,
      experiment.batch_order,
      experiment.config.data_loader,
    )

  def move_to(self, batch: int) -> None:
    """Makes a batch the next one.

    Args:
      batch: its number in the order of batches of the whole run.
    """
    self.iterator.set_state(pipeline.state_at(batch))

  def take(self, num_steps: int) -> Tree:
    """Returns the next batch, or the stacked batches of several steps."""
    parallel, config = self._experiment.parallel, self._experiment.config
    if num_steps == 1:
      return parallel.shard(next(self.iterator))
    batches = pipeline.take(
      self.iterator,
      self._experiment.batch_order,
      config.data_loader,
      num_steps,
    )
    return parallel.shard(batches, stacked=True)


def example_batch(experiment: Experiment) -> pipeline.Batch:
  """Returns a batch of the shapes in training, on the host."""
  config = experiment.config
  batch = next(
    pipeline.evaluation_batches(
      experiment.train_split,
      config.batch_size,
      config.data_loader,
      jax.process_index(),
      jax.process_count(),
    )
  )
  return {name: x for name, x in batch.items() if name != "mask"}
